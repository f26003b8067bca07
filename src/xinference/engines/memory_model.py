"""What planning must know of an engine's memory: its options' names, how it splits a model, what it takes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from xinference.launch.model_shape import ModelShape
from xinference.units import MIB

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


class Loaded(Protocol):
    """Computes what an engine holds of stored weights."""

    def __call__(
        self, shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
    ) -> ModelShape:
        """`shape` with the bytes that the engine holds of its weights and keeps of each token."""
        ...


def loaded_as_stored(
    shape: ModelShape, model_format: str, quantization: str, options: Mapping[str, Any], *, on_cpu: bool
) -> ModelShape:
    """The shape of an engine that computes with the weights as the file has them."""
    return shape


@dataclass(frozen=True)
class MemoryModel:
    """How one engine uses memory."""

    context_option: str
    slots_option: str
    default_slots: int
    splits: Literal["layers", "tensors"]
    """How several devices share one model: whole layers each, or a slice of every layer."""
    cuda_overhead: Callable[[Dimensions], int]
    """Bytes on each device in addition to weights and cache."""
    cpu_overhead: Callable[[Dimensions], int]
    cpu_later: Callable[[Dimensions], int] = lambda dims: 0
    """The part of `cpu_overhead` that only requests touch."""
    loaded: Loaded = loaded_as_stored
    file_pages_bytes: Callable[[ModelShape, frozenset[str]], int] = lambda shape, cpu_flags: 0
    """Bytes of the weight file's pages that stay in memory next to a copy of them, on a CPU with these flags."""
    cache_grows: bool = False
    """Whether the cache takes memory as the contexts fill, and not at the start."""
    cell_padding: int = 1
    """A slot's cache is a multiple of so many tokens."""
    answer_counts_in_context: bool = True
    """Whether `context_option` limits prompt and answer together, and not the prompt alone."""
    spills_to_host: bool = False
    """Whether layers that find no room on devices stay in the host's memory."""
    usual_devices: int = 1
    """GPUs that an estimate assumes where no host is named; 0: the CPU."""
    parallel_option: str | None = None
    fraction_option: str | None = None
    fraction_of: Literal["total", "free"] = "total"
    """What the fraction is a share of: the device's memory, or what was free when the engine started."""
    fraction_covers_overhead: bool = True
    """Whether the fraction includes the overhead, or weights and cache alone."""
