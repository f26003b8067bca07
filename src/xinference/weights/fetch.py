"""Weights of a plan: where they are cached, and their fetch. Blocking; run in a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.hubs.base import Hub
from xinference.launch.plan import LaunchPlan
from xinference.weights.conversion import Progress


def cached_path(hubs: Mapping[str, Hub], version: ModelVersion, source: Source) -> Path | None:
    """Where the whole weights already are, or None. Opens no socket."""
    hub = hubs.get(source.hub)
    return hub.cached(version, source) if hub else None


def fetch(hubs: Mapping[str, Hub], plan: LaunchPlan, progress: Progress, cancelled: threading.Event) -> Path:
    """The weights of a plan, fetched if they are not here.

    Raises:
        Problem: what the hub could not do, and the way out.
    """
    assert plan.source is not None
    hub = hubs.get(plan.source.hub)
    if hub is None:
        raise Problem(
            "hub_unavailable",
            400,
            f"The weights of {plan.version.version_id} are on {plan.source.hub} ({plan.source.model_id}), "
            "which this version can't fetch from yet.",
            stage="fetch",
            hint="Fetch the file yourself and give it with --model-path.",
        )
    return hub.fetch(plan.version, plan.source, progress, cancelled)
