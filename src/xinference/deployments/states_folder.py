"""The folder in which a replica saves the states of prompts."""

from __future__ import annotations

import glob
import logging
from importlib import metadata
from pathlib import Path

from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.files import state_folders
from xinference.launch.plan import SizedPlan

log = logging.getLogger(__name__)


def states_folder(engine: Engine, plan: SizedPlan, settings: Settings) -> Path | None:
    """The folder for this model, without states of other weights or options; None: the replica saves no states."""
    if not settings.saves_states or not plan.sizing.state_bytes:
        return None
    try:
        return state_folders.prepare(settings.home, plan.uid, _stamp(engine, plan))
    except OSError as error:
        log.warning("the beginnings of prompts to %r are not shared: %s", plan.uid, error)
        return None


def _stamp(engine: Engine, plan: SizedPlan) -> str:
    """What a state depends on: the weights, the options and the engine's release."""
    first, found, _ = plan.path.name.partition("-00001-of-")
    files = sorted(plan.path.parent.glob(f"{glob.escape(first)}-*-of-*")) if found else [plan.path]
    sizes = [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    release = metadata.version(engine.package) if engine.package else ""
    return repr((str(plan.path), sizes, sorted(plan.options.items(), key=repr), release))
