"""The folder in which a replica saves the states of prompts."""

from __future__ import annotations

import asyncio
import glob
import logging
from hashlib import blake2b
from importlib import metadata
from pathlib import Path

from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.files import state_folders
from xinference.launch.plan import SizedPlan
from xinference.work_threads import start_thread

log = logging.getLogger(__name__)

#: Pieces of a weight file that are compared, at equal distances. Reading all of it would take as long as the load.
PIECES, PIECE_BYTES = 32, 4096
#: Maximum time for them. On a disk that hangs, the replica starts without saved states.
SECONDS = 5.0


async def states_folder(engine: Engine, plan: SizedPlan, settings: Settings, seconds: float = SECONDS) -> Path | None:
    """The folder for this model, without states of other weights or options; None: the replica saves no states.

    The weights are read in a thread of their own: they may be on a disk that is slow, or hangs.
    """
    if not settings.saves_states or not plan.sizing.state_bytes:
        return None
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(start_thread("saved states", _prepare, engine, plan, settings.home))
    except TimeoutError:
        reason = f"the weights were not read within {seconds:g} s"
    except OSError as error:
        reason = str(error)
    log.warning("the beginnings of prompts to %r are not shared: %s", plan.uid, reason)
    return None


def _prepare(engine: Engine, plan: SizedPlan, home: Path) -> Path:
    return state_folders.prepare(home, plan.uid, _stamp(engine, plan))


def _stamp(engine: Engine, plan: SizedPlan) -> str:
    """What a state depends on: the weights, the options (such as the types of the caches) and the engine's release.

    A state of a longer context than the plan's is valid: llama.cpp refuses one with more tokens than a slot has.

    Raises:
        OSError: the weights can't be read.
    """
    first, found, _ = plan.path.name.partition("-00001-of-")
    files = sorted(plan.path.parent.glob(f"{glob.escape(first)}-*-of-*")) if found else [plan.path]
    weights = [(each.name, each.stat().st_size, each.stat().st_mtime_ns, _sampled(each)) for each in files]
    release = metadata.version(engine.package) if engine.package else ""
    return repr((str(plan.path), weights, sorted(plan.options.items(), key=repr), release))


def _sampled(file: Path) -> str:
    """A digest of pieces of a file: other weights of the same size differ in every tensor, whatever their time says."""
    digest = blake2b(digest_size=16)
    with file.open("rb", buffering=0) as reader:
        size = reader.seek(0, 2)
        for piece in range(PIECES):
            reader.seek(size * piece // PIECES)
            digest.update(reader.read(PIECE_BYTES))
    return digest.hexdigest()
