"""Finds cached weights of a version and fetches missing ones. Blocking; run in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.launch.plan import ResolvedLaunch
from xinference.weights.conversion import Progress


def cached_path(hubs: Mapping[str, Hub], version: ModelVersion, source: Source) -> Path | None:
    """The path of the complete cached weights, or None. Opens no socket."""
    hub = hubs.get(source.hub)
    return hub.find_cached(version, source) if hub else None


def local_path(hubs: Mapping[str, Hub], launch: ResolvedLaunch) -> Path | None:
    """The path of a launch's weights if they are local or cached, else None. Opens no socket."""
    if isinstance(launch.origin, Path):
        return launch.origin
    return cached_path(hubs, launch.version, launch.origin)


def fetch(
    hubs: Mapping[str, Hub], version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event
) -> Path:
    """The path of a version's weights; fetches them if they are not cached.

    Raises:
        Problem: as `Hub.fetch`; 400 ``hub_unavailable``.
    """
    hub = hubs.get(source.hub)
    if hub is None:
        raise Problem(
            Code.HUB_UNAVAILABLE,
            f"The weights of {version.version_id} are on {source.hub} ({source.model_id}), "
            "from which this version can't fetch yet.",
            stage="fetch",
            hint="Download the file yourself and pass it with --model-path.",
        )
    return hub.fetch(version, source, progress, cancelled)
