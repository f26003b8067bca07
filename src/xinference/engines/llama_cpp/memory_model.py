"""llama.cpp's memory model: overheads, padding of the cache, and repacked copies of weights."""

from __future__ import annotations

from xinference.engines.llama_cpp.saved_sizes import state_bytes
from xinference.engines.memory_model import Dimensions, MemoryModel
from xinference.launch.model_shape import ModelShape
from xinference.units import MIB

#: Number of a prompt's tokens that are computed together (n_ubatch).
MICRO_BATCH = 512
#: The least for weights below `SMALL_WEIGHTS` on the CPU, where the buffers of `MICRO_BATCH` tokens would be up to a
#: tenth of the memory. One prompt takes the same CPU time with both (SmolLM2-135M, one thread).
SMALL_MICRO_BATCH = 128
#: The number of tokens of one sequence from which on llama.cpp computes attention in tiles on the CPU. Fewer take
#: up to twice as long: after 6,600 tokens, 56 take 1.45 s and 66 take 0.92 s (SmolLM2-135M, two threads).
ATTENTION_TILE = 64
#: Number of tokens of prompts after which the engine looks for other work (n_batch): answers of other requests, and
#: states to save and to restore. With llama.cpp's default of 2048, they wait four times as long for a long prompt.
BATCH = 512
SMALL_WEIGHTS = 256 * MIB
#: Each sequence's cache is rounded up to this many cells.
CELL_PADDING = 256
#: Tensor type -> the instruction sets with which llama.cpp copies it into rows of 8 for faster kernels
#: (`ggml_repack_get_optimal_repack_type` in ggml's repack.cpp). The file's own pages stay until memory is needed.
REPACKED = {
    "Q4_0": ("avx2", "asimddp"),
    "Q4_K": ("avx2", "asimddp"),
    "IQ4_NL": ("avx2", "asimddp"),
    "Q2_K": ("avx512f",),
    "Q5_K": ("i8mm",),
    "Q6_K": ("i8mm",),
    "Q8_0": ("asimddp",),
}


def small_micro_batch(slots: int) -> int:
    """The micro-batch for small weights: prompts in all slots at the same time have a tile each."""
    return min(MICRO_BATCH, max(SMALL_MICRO_BATCH, ATTENTION_TILE * slots))


def repacked_bytes(shape: ModelShape, cpu_flags: frozenset[str]) -> int:
    """Bytes of the weights of which llama.cpp makes a repacked copy on a CPU with these flags."""
    return sum(
        count
        for name, count in shape.bytes_by_type.items()
        if any(flag in cpu_flags for flag in REPACKED.get(name, ()))
    )


def cpu_overhead(dims: Dimensions) -> int:
    """Bytes of the process, its tokenizer and the graph's buffers.

    Fitted to `benchmarks/memory.py`: 26 MiB for the program; 384 bytes per token of the vocabulary (texts and their
    index); 14 rows of 32-bit activations of the model's width for each of `MICRO_BATCH` tokens. The memory when the
    engine is ready does not depend on the micro-batch (SmolLM2-135M with 64 to 1024 tokens: 161.6 to 162.0 MiB):
    only requests write into the buffers.
    """
    return 26 * MIB + 384 * dims.vocab + MICRO_BATCH * 14 * 4 * dims.hidden + cpu_later(dims)


def cpu_later(dims: Dimensions) -> int:
    """The part of `cpu_overhead` that is allocated only by requests.

    The attention mask of a micro-batch takes 16 bits for each token and filled cell. Fitted as above: 8 MiB for the
    first request's threads and texts, and 1 MiB for each slot.
    """
    return MICRO_BATCH * 2 * dims.cells + (8 + dims.slots) * MIB


def cuda_overhead(dims: Dimensions) -> int:
    """Bytes of CUDA's context on a device, and of the same buffers as on the CPU."""
    return 400 * MIB + cpu_overhead(dims)


MEMORY = MemoryModel(
    context_option="n_ctx",
    slots_option="n_parallel",
    default_slots=4,
    splits="layers",
    cuda_overhead=cuda_overhead,
    cpu_overhead=cpu_overhead,
    cpu_later=cpu_later,
    file_pages_bytes=repacked_bytes,
    cell_padding=CELL_PADDING,
    answer_counts_in_context=False,
    spills_to_host=True,
    usual_devices=0,
    state_bytes=state_bytes,
)
