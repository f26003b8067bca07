"""Memory of the fifth engine: whole layers on each device, and little besides weights and cache."""

from __future__ import annotations

from xinference.engines.memory_model import MemoryModel
from xinference.units import MIB

MEMORY = MemoryModel(
    context_option="window",
    slots_option="lanes",
    default_slots=2,
    splits="layers",
    cuda_overhead=lambda dims: 300 * MIB,
    cpu_overhead=lambda dims: 20 * MIB,
)
