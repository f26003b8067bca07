"""From a plan to weights on this machine, and to what their header says. Blocking; run in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.formats.gguf import read_header
from xinference.hubs.base import Hub
from xinference.planning.launch_plan import LaunchPlan
from xinference.planning.memory import ModelShape

Progress = Callable[[int, int | None, str], None]


def read_shape(path: Path) -> ModelShape:
    """What the planner needs of a GGUF file.

    Raises:
        Problem: 400 ``bad_weight_file``, naming what is wrong with it.
    """
    header = read_header(path)
    return ModelShape(
        weights_bytes=header.weights_bytes,
        kv_bytes_per_token=header.kv_bytes_per_token(),
        trained_context=header.context_length or 0,
        vocab_size=header.vocab_size or 0,
    )


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
