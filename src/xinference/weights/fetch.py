"""Weights of a version: where they are cached, and their fetch. Blocking; run in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.launch.plan import ResolvedLaunch
from xinference.weights.conversion import Progress


def cached_path(hubs: Mapping[str, Hub], version: ModelVersion, source: Source) -> Path | None:
    """Where the whole weights already are, or None. Opens no socket."""
    hub = hubs.get(source.hub)
    return hub.cached(version, source) if hub else None


def local_path(hubs: Mapping[str, Hub], launch: ResolvedLaunch) -> Path | None:
    """Where the weights of a launch already are: where the user says, or in a cache. Opens no socket."""
    if isinstance(launch.origin, Path):
        return launch.origin
    return cached_path(hubs, launch.version, launch.origin)


def fetch(
    hubs: Mapping[str, Hub], version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event
) -> Path:
    """The weights of a version, fetched if they are not here.

    Raises:
        Problem: what the hub could not do, and the way out.
    """
    hub = hubs.get(source.hub)
    if hub is None:
        raise Problem(
            "hub_unavailable",
            400,
            f"The weights of {version.version_id} are on {source.hub} ({source.model_id}), "
            "which this version can't fetch from yet.",
            stage="fetch",
            hint="Fetch the file yourself and give it with --model-path.",
        )
    return hub.fetch(version, source, progress, cancelled)
