"""Measures the memory of a ready engine and corrects the next estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil

from xinference.hardware import nvidia
from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.planning.occupancy import Occupancy
from xinference.store.database import Measurement, Store


@dataclass(frozen=True)
class Used:
    """Bytes that an engine's processes hold."""

    memory: int
    """Resident set sizes of the whole tree: pages that its processes share count once for each of them."""
    gpu_memory: int | None
    """None: no GPU, or its driver does not say."""


def measure(pid: int) -> Used | None:
    """What process `pid` and all below it hold now; None if it has ended. Blocks for some milliseconds."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
        memory = root.memory_info().rss + sum(_resident(process) for process in tree[1:])
    except psutil.Error:
        return None
    return Used(memory, nvidia.processes(frozenset(process.pid for process in tree)))


def measurement(plan: SizedPlan, used: Used) -> Measurement:
    """The row to keep of it."""
    sizing = plan.sizing
    return Measurement(
        plan.version.version_id,
        plan.engine,
        sizing.context_length,
        sizing.slots,
        used.memory,
        sizing.loaded_bytes - sizing.correction_bytes,
        used.gpu_memory,
    )


def correction(plan: LaunchPlan, known: Sequence[Measurement]) -> int:
    """Bytes to add to the next estimate of `plan`: what the newest measurement showed beyond its own estimate.

    Weights and cache are known to the byte, so what is off is the overhead, and it is about the same at any context.
    With GPUs the host's memory says nothing of the plan's, and nothing is corrected.
    """
    comparable = [m for m in known if m.gpu_bytes is None]
    if plan.use_gpu or not comparable:
        return 0
    return comparable[0].measured_bytes - comparable[0].estimated_bytes


def corrected(occupancy: Occupancy, plan: LaunchPlan, store: Store) -> Occupancy:
    """The same with the correction that earlier measurements of the plan's version on its engine give."""
    known = store.measurements(plan.version.version_id, plan.engine)
    return replace(occupancy, correction_bytes=correction(plan, known))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended while we looked
        return 0
