"""What the planner knows of each engine's use of memory: its options' names, how it splits, what it takes beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from xinference.units import GIB, MIB

#: Tokens of a prompt that llama.cpp computes together (n_ubatch).
MICRO_BATCH = 512
#: Tokens that vLLM and SGLang compute together at most by default (chunked prefill).
CHUNK = 8192

#: Smaller blocks than this may stay with the process after they are freed (glibc's largest `M_MMAP_THRESHOLD`).
KEPT_BELOW = 32 * MIB


@dataclass(frozen=True)
class Dimensions:
    """The numbers that an overhead follows from; 0 where they are not known."""

    hidden: int = 0
    vocab: int = 0
    cells: int = 0
    """Tokens of all slots' contexts together."""
    longest: int = 0
    """Tokens of one context."""
    slots: int = 1
    kept_bytes: int = 0
    """Bytes of the layers' matrices that are smaller than `KEPT_BELOW` each."""
    bitsandbytes: bool = False
    packed: bool = False
    """Whether layers have GPTQ's or AWQ's few bits."""


@dataclass(frozen=True)
class MemoryModel:
    """One engine's habits."""

    context_option: str
    slots_option: str
    default_slots: int
    splits: Literal["layers", "tensors"]
    """How several devices share one model: whole layers each, or a slice of every layer."""
    cuda_overhead: Callable[[Dimensions], int]
    """Bytes on each device beside weights and cache."""
    cpu_overhead: Callable[[Dimensions], int]
    cpu_later: Callable[[Dimensions], int] = lambda dims: 0
    """The part of `cpu_overhead` that only requests touch."""
    cache_grows: bool = False
    """Whether the cache takes memory as the contexts fill, and not at the start."""
    cell_padding: int = 1
    """A slot's cache is a multiple of so many tokens."""
    parallel_option: str | None = None
    fraction_option: str | None = None
    fraction_of: Literal["total", "free"] = "total"
    """What the fraction is a share of: the device's memory, or what was free when the engine started."""


def llama_overhead(dims: Dimensions) -> int:
    """llama.cpp: the process, its tokenizer, and the graph's buffers.

    Fitted to `benchmarks/memory.py`: 26 MiB of program; 384 bytes a token of vocabulary (texts and their index);
    14 rows of 32-bit activations as wide as the model for each token of a micro-batch.
    """
    return 26 * MIB + 384 * dims.vocab + MICRO_BATCH * 14 * 4 * dims.hidden + llama_later(dims)


def llama_later(dims: Dimensions) -> int:
    """The part of it that is touched by requests only.

    Which cell each token of a micro-batch may see, 16 bits each, as far as the cache is filled; and, fitted as above,
    8 MiB for the first request's threads and texts, and one for each slot.
    """
    return MICRO_BATCH * 2 * dims.cells + (8 + dims.slots) * MIB


def _vllm_cuda(dims: Dimensions) -> int:
    # CUDA's context and libraries take about 0.5 GiB, captured graphs 0.5 to 1 GiB; a chunk's activations are about
    # 8 rows as wide as the model (projections up and down, residual, norm) of 16 bits, its logits 32 bits for 256.
    return int(1.5 * GIB) + CHUNK * 8 * 2 * dims.hidden + 256 * 4 * dims.vocab


def _vllm_cpu(dims: Dimensions) -> int:
    """vLLM on the CPU: server, engine and worker, each a Python with torch; pages that they share count thrice.

    Measured by `benchmarks/memory.py --engines`: 1700 MiB of programs with a tiny model (560 + 540 + 590, and 12 for a
    tracker), 30 more for GPTQ's and AWQ's. oneDNN copies linear layers into an order of its own, and the memory of
    small originals stays with the process: 215 MiB of 202 for 135M parameters; 305 of 588, of which 324 are small, for
    6 layers of 2048. Packed weights are unpacked and packed anew, which leaves about three times their own bytes: 160
    MiB (GPTQ) and 200 (AWQ) of 54, and 438 (GPTQ) of 158. The whole cache is touched at the start.
    """
    kept = dims.kept_bytes * 3 + 30 * MIB if dims.packed else dims.kept_bytes
    return 1700 * MIB + kept + _vllm_later(dims)


def _vllm_later(dims: Dimensions) -> int:
    # Activations of a chunk in 32 bits.
    return min(dims.cells, CHUNK) * 4 * 4 * dims.hidden


def _transformers_cuda(dims: Dimensions) -> int:
    # CUDA's context, and the longest prompt computed at once: 8 rows of 16 bits, and its last logits.
    return int(0.7 * GIB) + dims.longest * 8 * 2 * dims.hidden + 16 * 4 * dims.vocab


def _transformers_cpu(dims: Dimensions) -> int:
    """Transformers on the CPU: one Python with torch and transformers.

    Measured by `benchmarks/memory.py --engines`: 376 MiB beside weights of 4 MiB to 1.7 GiB, 46 more for bitsandbytes.
    """
    return (376 + 46 * dims.bitsandbytes) * MIB + _transformers_later(dims)


def _transformers_later(dims: Dimensions) -> int:
    # The longest prompt is computed at once, in 32 bits.
    return min(dims.longest, CHUNK) * 4 * 4 * dims.hidden


TRAITS = {
    "llama.cpp": MemoryModel(
        context_option="n_ctx",
        slots_option="n_parallel",
        default_slots=4,
        splits="layers",
        # On a device the program's own part is CUDA's context; the graph's buffers are the same.
        cuda_overhead=lambda dims: 400 * MIB + llama_overhead(dims),
        cpu_overhead=llama_overhead,
        cpu_later=llama_later,
        cell_padding=256,
    ),
    "vLLM": MemoryModel(
        context_option="max_model_len",
        slots_option="max_num_seqs",
        default_slots=16,
        splits="tensors",
        cuda_overhead=_vllm_cuda,
        cpu_overhead=_vllm_cpu,
        cpu_later=_vllm_later,
        cell_padding=16,
        parallel_option="tensor_parallel_size",
        fraction_option="gpu_memory_utilization",
    ),
    "SGLang": MemoryModel(
        context_option="context_length",
        slots_option="max_running_requests",
        default_slots=16,
        splits="tensors",
        cuda_overhead=_vllm_cuda,
        cpu_overhead=_vllm_cpu,
        cpu_later=_vllm_later,
        cell_padding=16,
        parallel_option="tp_size",
        fraction_option="mem_fraction_static",
        fraction_of="free",
    ),
    "Transformers": MemoryModel(
        context_option="context_length",
        slots_option="max_num_seqs",
        default_slots=16,
        splits="layers",
        cuda_overhead=_transformers_cuda,
        cpu_overhead=_transformers_cpu,
        cpu_later=_transformers_later,
        cache_grows=True,
    ),
}
