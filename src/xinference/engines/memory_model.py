"""The memory model of an engine for planning: the names of its options, how it splits a model, its overheads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch, Sizing
from xinference.units import MIB

#: A process may keep freed blocks that are smaller than this (the maximum of glibc's `M_MMAP_THRESHOLD`).
RETAINED_BELOW = 32 * MIB


class Dimensions(NamedTuple):
    """The numbers from which an overhead is computed; 0: not known."""

    hidden: int = 0
    vocab: int = 0
    cells: int = 0
    """Cache cells of all slots together, in tokens."""
    longest: int = 0
    """Context of one slot, in tokens."""
    slots: int = 1
    retained_bytes: int = 0
    """Bytes of the layers' matrices that are smaller than `RETAINED_BELOW` each."""
    bitsandbytes: bool = False
    packed: bool = False
    """Whether the layers' weights are packed by GPTQ or AWQ."""
    pooled: bool = False
    """Whether an answer is a vector or a score of the whole input."""
    vision_elements: int = 0
    """Elements of the vision tower's width for each token of an image; 0: the engine reads no images of the model."""


class LoadedShape(Protocol):
    """Computes the shape of a model after an engine has loaded it."""

    def __call__(
        self, shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
    ) -> ModelShape:
        """`shape` of the stored weights, with the sizes of weights and of a token's cache in the engine's types."""
        ...


def stored_shape(
    shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
) -> ModelShape:
    """The `LoadedShape` of an engine that computes with the weights in their stored types."""
    return shape


@dataclass(frozen=True)
class MemoryModel:
    """The use of memory by one engine."""

    context_option: str
    slots_option: str
    default_slots: int
    splits: Literal["layers", "tensors"]
    """The split of one model over several devices: by whole layers, or by slices of every layer."""
    cuda_overhead: Callable[[Dimensions], int]
    """Bytes on each device in addition to weights and cache."""
    cpu_overhead: Callable[[Dimensions], int]
    cpu_later: Callable[[Dimensions], int] = lambda dims: 0
    """The part of `cpu_overhead` that is allocated only by requests."""
    loaded_shape: LoadedShape = stored_shape
    file_pages_bytes: Callable[[ModelShape, frozenset[str]], int] = lambda shape, cpu_flags: 0
    """Bytes of the weight file's pages that stay in memory next to a copy of them, on a CPU with these flags."""
    cache_grows: bool = False
    """The cache takes memory as the contexts fill, not at the start."""
    cell_padding: int = 1
    """A slot's cache is rounded up to a multiple of this number of tokens."""
    answer_counts_in_context: bool = True
    """`context_option` limits prompt and answer together, not the prompt alone."""
    spills_to_host: bool = False
    """Layers that do not fit on the devices stay in the host's memory."""
    usual_devices: int = 1
    """Number of GPUs for an estimate without a host; 0: CPU."""
    parallel_option: str | None = None
    """The option for the number of devices over which a replica is split."""
    fraction_option: str | None = None
    """The option for the share of a device's memory."""
    fraction_of: Literal["total", "free"] = "total"
    """The basis of the fraction: the device's total memory, or its free memory when the engine starts."""
    fraction_covers_overhead: bool = True
    """The fraction includes the overhead; otherwise it covers only weights and cache."""
    state_bytes: Callable[[ResolvedLaunch, Sizing], int] = lambda launch, sizing: 0
    """Wanted size of the saved states of prompts, for engines with which the gateway shares the beginnings of prompts;
    0: the launch saves none."""
