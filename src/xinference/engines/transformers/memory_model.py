"""The memory model of the Transformers server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from xinference.engines.memory_model import Dimensions, MemoryModel
from xinference.engines.torch_memory import CHUNK, TorchLoadedShape
from xinference.engines.transformers.packings import UNPACKED
from xinference.engines.transformers.server.draft_lengths import MOST_TOKENS as DRAFT_TOKENS
from xinference.engines.transformers.server.image_limits import DECODED_BYTES, MAX_PIXELS, MAX_TOKENS
from xinference.engines.transformers.server.length_groups import GPU_LIMITS, cpu_limits
from xinference.engines.transformers.server.vision_architectures import WITH_IMAGES
from xinference.launch.model_shape import ModelShape
from xinference.units import GIB, MIB

#: Rows of the model's width that a layer of an encoder allocates for each token of a group.
POOLED_ROWS = 14
#: The same of a vision tower for each patch, with the pixels: measured, 19 to 25 with CLIP, SigLIP and Qwen2-VL's.
TOWER_ROWS = 24
#: The part of the program's memory that an encoder's first requests allocate: a ready server has 87 MiB of weights of
#: all-MiniLM-L6-v2 and 386 MiB in all.
POOLED_LATER = 72 * MIB


def cuda_overhead(dims: Dimensions) -> int:
    """Bytes of CUDA's context, of the longest prompt's activations (8 rows of 16 bits), and of a step's logits."""
    if dims.pooled:
        return int(0.7 * GIB) + max(dims.longest, GPU_LIMITS.most_tokens) * POOLED_ROWS * 2 * dims.hidden
    return int(0.7 * GIB) + dims.longest * 8 * 2 * dims.hidden + DRAFT_TOKENS * 4 * dims.vocab + _tower(dims, 2)


def cpu_overhead(dims: Dimensions) -> int:
    """Bytes of one Python process with torch and transformers.

    Measured by `benchmarks/memory.py --engines`: 376 MiB in addition to weights of 4 MiB to 1.7 GiB, and 46 MiB more
    with bitsandbytes.
    """
    base = (376 + 46 * dims.bitsandbytes) * MIB
    return base + cpu_later(dims) - (POOLED_LATER if dims.pooled else 0)


def cpu_later(dims: Dimensions) -> int:
    """The part of `cpu_overhead` that requests allocate: a prompt's activations with 32 bits, at most a chunk's.

    The logits of a step with drafts have 32 bits for each token of the step and of the vocabulary.
    An embedding model and a reranker compute a whole group of inputs, or one longer input, at the same time.
    """
    if dims.pooled:
        group = max(dims.longest, cpu_limits(dims.hidden).most_tokens) * POOLED_ROWS * 4 * dims.hidden
        return group + POOLED_LATER
    decoded = MAX_PIXELS * DECODED_BYTES if dims.vision_elements else 0
    logits = DRAFT_TOKENS * 4 * dims.vocab
    return min(dims.longest, CHUNK) * 4 * 4 * dims.hidden + logits + _tower(dims, 4) + decoded


def _tower(dims: Dimensions, width: int) -> int:
    """The activations of a vision tower with elements of `width` bytes, for images that fill the context."""
    return min(dims.longest, MAX_TOKENS) * dims.vision_elements * TOWER_ROWS * width


class LoadedShape(TorchLoadedShape):
    """The shape of loaded weights.

    An embedding model and a reranker keep no keys and values, and only some architectures have images here.
    """

    def __call__(
        self, shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
    ) -> ModelShape:
        if shape.architecture in WITH_IMAGES and shape.packing is None:  # the modules of images are not packed
            linear = max(0, shape.linear_bytes - shape.vision_bytes)
            shape = msgspec.structs.replace(shape, linear_bytes=linear)
        loaded = super().__call__(shape, model_format, quantization, options, on_cpu=on_cpu)
        if loaded.pooled:
            return msgspec.structs.replace(loaded, kv_bytes_per_token=0)
        if loaded.vision_elements and loaded.architecture not in WITH_IMAGES:
            return msgspec.structs.replace(loaded, vision_elements=0)
        return loaded


MEMORY = MemoryModel(
    context_option="context_length",
    slots_option="max_num_seqs",
    default_slots=16,
    splits="layers",
    cuda_overhead=cuda_overhead,
    cpu_overhead=cpu_overhead,
    cpu_later=cpu_later,
    loaded_shape=LoadedShape(cpu_type="float32", type_option="torch_dtype", unpacked=UNPACKED),
    cache_grows=True,
)
