"""The limits within which an engine runs: the ceiling of its host memory, and the watch on its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import psutil

from xinference.config import Settings
from xinference.hardware import cgroup
from xinference.launch.plan import SizedPlan
from xinference.process.command import EngineCommand, ProgressProbe
from xinference.process.engine_watch import Guard
from xinference.process.hang import EngineTraffic
from xinference.routing.interfaces import ReplicaLoad
from xinference.units import GIB

#: Host memory for each device of an engine on GPUs, whose plan counts the memory of the devices: the processes, their
#: libraries, and pinned buffers.
GPU_HOST_BYTES = 16 * GIB
#: Share of the machine's memory that no engine may exceed, unless its plan does.
MACHINE_SHARE = 0.95
#: While an engine loads, a copy of its weights in another type may exist next to the first one.
STARTING_FACTOR = 3


def host_bytes(plan: SizedPlan, command: EngineCommand) -> int | None:
    """Bytes of host memory that one replica may take by its plan and options; None: its options set no limit."""
    if command.extra_bytes is None:
        return None
    devices = plan.sizing.tensor_parallel if plan.use_gpu else 0
    return plan.sizing.engine_bytes + devices * GPU_HOST_BYTES + command.extra_bytes


def ceilings(planned: int | None, margin: int, machine: int) -> tuple[int, int]:
    """The ceilings of an engine's memory while it starts and once it is ready, in bytes; 0: no ceiling.

    Never less than the plan and a quarter of the margin.
    """
    if not margin:
        return 0, 0
    largest = int(machine * MACHINE_SHARE)
    if planned is None:
        return largest, largest
    lowest = planned + margin // 4
    starting, ready = (int(planned * factor) + margin for factor in (STARTING_FACTOR, 1.25))
    return max(lowest, min(starting, largest)), max(lowest, min(ready, largest))


def machine_bytes() -> int:
    """Memory of this machine or, if it is less, of the control group."""
    total = int(psutil.virtual_memory().total)
    limit = cgroup.read_limits().memory_limit
    return total if limit is None else min(total, limit)


def guard_context(plan: SizedPlan, command: EngineCommand) -> dict[str, Any]:
    """The input of `guard_of` for the context of the replica, so that a later server knows it."""
    progress = None if command.progress is None else asdict(command.progress)
    return {"host_bytes": host_bytes(plan, command), "progress": progress}


def guard_of(context: Mapping[str, Any], settings: Settings, load: ReplicaLoad) -> Guard:
    """The limits of an engine, from its context; without limits if an earlier release has started it."""
    stored = context.get("guard")
    if not isinstance(stored, Mapping):
        return Guard()
    progress = stored["progress"]
    starting, ready = ceilings(stored["host_bytes"], settings.engine_memory_margin, machine_bytes())
    return Guard(
        traffic=EngineTraffic(load.at, load.last_byte),
        progress=None if progress is None else ProgressProbe(**progress),
        starting_ceiling=starting,
        ceiling=ready,
    )
