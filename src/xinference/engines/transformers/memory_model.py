"""The memory model of the Transformers server."""

from __future__ import annotations

from xinference.engines.memory_model import Dimensions, MemoryModel
from xinference.engines.torch_memory import CHUNK, TorchLoadedShape
from xinference.units import GIB, MIB


def cuda_overhead(dims: Dimensions) -> int:
    """Bytes of CUDA's context, of the longest prompt's activations (8 rows of 16 bits), and of the last logits."""
    return int(0.7 * GIB) + dims.longest * 8 * 2 * dims.hidden + 16 * 4 * dims.vocab


def cpu_overhead(dims: Dimensions) -> int:
    """Bytes of one Python process with torch and transformers.

    Measured by `benchmarks/memory.py --engines`: 376 MiB in addition to weights of 4 MiB to 1.7 GiB, and 46 MiB more
    with bitsandbytes.
    """
    return (376 + 46 * dims.bitsandbytes) * MIB + cpu_later(dims)


def cpu_later(dims: Dimensions) -> int:
    """The part of `cpu_overhead` that requests allocate: a prompt's activations with 32 bits, at most a chunk's."""
    return min(dims.longest, CHUNK) * 4 * 4 * dims.hidden


MEMORY = MemoryModel(
    context_option="context_length",
    slots_option="max_num_seqs",
    default_slots=16,
    splits="layers",
    cuda_overhead=cuda_overhead,
    cpu_overhead=cpu_overhead,
    cpu_later=cpu_later,
    loaded_shape=TorchLoadedShape(cpu_type="float32", type_option="torch_dtype"),
    cache_grows=True,
)
