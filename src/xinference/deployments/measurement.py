"""Stores the measured memory of a ready engine and corrects the next estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xinference.launch.plan import LaunchPlan, SizedPlan
from xinference.nodes.memory_use import MemoryUse
from xinference.planning.occupancy import Occupancy
from xinference.store.database import Measurement, Store


def measurement(plan: SizedPlan, used: MemoryUse) -> Measurement:
    """The row that stores a measurement."""
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


def correction(plan: LaunchPlan, measurements: Sequence[Measurement]) -> int:
    """Bytes to add to the next estimate of `plan`: the difference between the newest measurement and its estimate.

    The sizes of weights and cache are exact. The difference is therefore overhead, which hardly depends on the
    context length. A plan that uses GPUs is not corrected: its use of host memory does not predict its use of the GPU.
    """
    return 0 if plan.use_gpu else next(iter(all_corrections(measurements).values()), 0)


def all_corrections(measurements: Sequence[Measurement]) -> dict[tuple[str, str], int]:
    """Version id and engine -> the correction of a plan on the CPU; `measurements` are newest first."""
    corrections: dict[tuple[str, str], int] = {}
    for each in measurements:
        if each.gpu_bytes is None:
            corrections.setdefault((each.version_id, each.engine), each.measured_bytes - each.estimated_bytes)
    return corrections


def with_correction(occupancy: Occupancy, plan: LaunchPlan, store: Store) -> Occupancy:
    """The occupancy with the correction from earlier measurements of the plan's version on its engine."""
    measurements = store.measurements(plan.version.version_id, plan.engine)
    return replace(occupancy, correction_bytes=correction(plan, measurements))
