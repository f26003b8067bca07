"""Memory of our server program for transformers."""

from __future__ import annotations

from xinference.engines.memory_model import Dimensions, MemoryModel
from xinference.engines.torch_memory import CHUNK, LoadedByTorch
from xinference.units import GIB, MIB


def cuda_overhead(dims: Dimensions) -> int:
    """CUDA's context, and the longest prompt computed at once: 8 rows of 16 bits, and its last logits."""
    return int(0.7 * GIB) + dims.longest * 8 * 2 * dims.hidden + 16 * 4 * dims.vocab


def cpu_overhead(dims: Dimensions) -> int:
    """One Python with torch and transformers.

    Measured by `benchmarks/memory.py --engines`: 376 MiB beside weights of 4 MiB to 1.7 GiB, 46 more for bitsandbytes.
    """
    return (376 + 46 * dims.bitsandbytes) * MIB + cpu_later(dims)


def cpu_later(dims: Dimensions) -> int:
    """The longest prompt is computed at once, in 32 bits."""
    return min(dims.longest, CHUNK) * 4 * 4 * dims.hidden


MEMORY = MemoryModel(
    context_option="context_length",
    slots_option="max_num_seqs",
    default_slots=16,
    splits="layers",
    cuda_overhead=cuda_overhead,
    cpu_overhead=cpu_overhead,
    cpu_later=cpu_later,
    loaded=LoadedByTorch(cpu_type="float32", type_option="torch_dtype"),
    cache_grows=True,
)
