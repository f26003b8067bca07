"""Which hubs answer from here: asked only where the answer decides something."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from xinference.catalog.models import ModelVersion
from xinference.config import Settings
from xinference.hubs.base import Hub
from xinference.hubs.repositories.repository import RepositoryHub

_KEPT_SECONDS = 60.0
_answers: dict[str, tuple[float, bool]] = {}
_lock = threading.Lock()


def reachable_for(version: ModelVersion, hubs: Mapping[str, Hub], settings: Settings) -> dict[str, bool]:
    """As `reachable`, but asks only if it decides: several hubs have the version, and it is in no cache."""
    having = [s for s in version.spec.sources if s.hub in hubs and s.has(version.quantization)]
    if len(having) < 2 or any(hubs[s.hub].cached(version, s) for s in having):
        return {}
    return reachable([hubs[s.hub] for s in having], settings)


def reachable(hubs: Iterable[Hub], settings: Settings, timeout: float = 3.0) -> dict[str, bool]:
    """Hub name -> whether its server answers, whatever it says. Blocks for at most about `timeout` seconds.

    A hub without one server of its own (a package index) is left out. Answers are kept for a minute.
    Offline, nothing is asked and nothing is known.
    """
    asked = [hub for hub in hubs if isinstance(hub, RepositoryHub) and not hub.offline_because()]
    if settings.offline or not asked:
        return {}
    with ThreadPoolExecutor(max_workers=len(asked)) as pool:
        answers = pool.map(lambda hub: _answers_at(hub.words.endpoint, timeout), asked)
        return {hub.name: answer for hub, answer in zip(asked, answers, strict=True)}


def _answers_at(endpoint: str, timeout: float) -> bool:
    with _lock:
        asked_at, answer = _answers.get(endpoint, (-_KEPT_SECONDS, False))
        if time.monotonic() - asked_at < _KEPT_SECONDS:
            return answer
    answer = _ask(endpoint, timeout)
    with _lock:
        _answers[endpoint] = (time.monotonic(), answer)
    return answer


def _ask(endpoint: str, timeout: float) -> bool:
    import httpx2

    try:
        httpx2.head(endpoint, timeout=timeout)
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return False
    return True
