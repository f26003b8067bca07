"""Checks which hubs can be reached; sends requests only if the answer affects a decision."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from xinference.catalog.models import ModelVersion
from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.repositories.repository import RepositoryHub
from xinference.work_threads import start_thread

_CACHE_SECONDS = 60.0
_answers: dict[str, tuple[float, bool]] = {}
_lock = threading.Lock()


def allowed_hubs(hubs: Mapping[str, Hub], settings: Settings) -> frozenset[str]:
    """The names of the hubs to which this machine may connect, by its settings. Sends nothing."""
    if settings.offline:
        return frozenset()
    return frozenset(
        name for name, hub in hubs.items() if not (isinstance(hub, RepositoryHub) and hub.offline_setting())
    )


def reachable_for(version: ModelVersion, hubs: Mapping[str, Hub], settings: Settings) -> dict[str, bool]:
    """The result of `reachable` if it affects the choice: several hubs have the version, and no cache has it."""
    candidates = [s for s in version.spec.sources if s.hub in hubs and s.has(version.quantization)]
    if len(candidates) < 2 or any(hubs[s.hub].find_cached(version, s) for s in candidates):
        return {}
    return reachable([hubs[s.hub] for s in candidates], settings)


def reachable(hubs: Iterable[Hub], settings: Settings, timeout: float = 3.0) -> dict[str, bool]:
    """Hub name -> whether its server answers, with any status. Blocks for about `timeout` seconds at most.

    A hub without its own server (a package index) is left out. Results are cached for a minute.
    Offline, no request is sent and the result is empty.
    """
    repositories = [hub for hub in hubs if isinstance(hub, RepositoryHub) and not hub.offline_setting()]
    if settings.offline or not repositories:
        return {}
    checks = [start_thread("reachability", _cached_check, hub.terms.endpoint, timeout) for hub in repositories]
    return {hub.name: check.result() for hub, check in zip(repositories, checks, strict=True)}


def _cached_check(endpoint: str, timeout: float) -> bool:
    with _lock:
        checked_at, answer = _answers.get(endpoint, (-_CACHE_SECONDS, False))
        if time.monotonic() - checked_at < _CACHE_SECONDS:
            return answer
    answer = _check(endpoint, timeout)
    with _lock:
        _answers[endpoint] = (time.monotonic(), answer)
    return answer


def _check(endpoint: str, timeout: float) -> bool:
    import httpx2

    try:
        httpx2.head(endpoint, timeout=timeout)
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False
    return True
