"""Estimates the memory of a replica, and chooses the context and the slots that fit. Pure."""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from xinference.engines.memory_model import RETAINED_BELOW, Dimensions, MemoryModel
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import Sizing
from xinference.units import MIB

#: Maximum share of the free memory that a launch may take.
USABLE_SHARE = 0.9
#: Context of a launch on the CPU that names none, in tokens: a long conversation, in one slot's worth of memory.
MODEST_CONTEXT = 4096
#: Maximum share of the free memory of the GPUs that the cache of one slot may take, if the context is chosen.
GPU_CONTEXT_SHARE = 0.25
#: Maximum share of the free memory that all slots after the first may take: other programs use the same machine.
EXTRA_SLOTS_SHARE = 0.25
#: The same for GPUs, so that a second model fits.
GPU_EXTRA_SLOTS_SHARE = 0.5
#: Minimum context of a launch, in tokens, if memory is short.
MIN_CONTEXT = 512
#: A context that is reduced to fit is one token shorter than a multiple of this number of tokens.
CONTEXT_STEP = 256


class MemoryBudget(msgspec.Struct, frozen=True):
    """Memory that one replica may take."""

    available_bytes: int
    """Free bytes on all its devices together, or in the host's memory."""
    devices: int = 0
    """Number of GPUs; 0: CPU."""
    usable: float = USABLE_SHARE
    """Share of `available_bytes` that the replica may take."""
    cpu_flags: frozenset[str] = frozenset()
    correction_bytes: int = 0
    """Measured minus estimated memory of an earlier launch of this version."""


def size_replica(
    shape: ModelShape,
    model: MemoryModel,
    budget: MemoryBudget,
    *,
    family_context: int,
    requested_context: int | None = None,
    requested_slots: int | None = None,
) -> Sizing:
    """Choose context and slots so that all slots can use the whole context at the same time.

    Requested values are never reduced to fit, all others are. What an engine's cache takes at the start is memory that
    other programs lose, so the choice is modest: see `chosen_context` and `_fitting_slots`.

    Raises:
        Problem: 400 ``does_not_fit``, with the required and the free memory.
    """
    estimate = MemoryEstimate(shape, model, budget)
    longest = longest_prompt(shape, family_context, requested_context)
    context = longest if requested_context else chosen_context(estimate, longest)
    why = _context_reason(shape, longest, context, requested_context)
    usable = int(budget.available_bytes * budget.usable)
    if shape.weights_bytes > usable or estimate.total(context, 1) > usable:
        context = _fitting_context(estimate, usable, context, requested_context)
        why = "the maximum that fits in the free memory in addition to the weights"
    slots = requested_slots or _fitting_slots(estimate, context, usable)
    if estimate.total(context, slots) > usable:
        raise _does_not_fit(estimate, estimate.total(context, slots), f"{written_slots(slots)} of {context} tokens")
    reasons = (
        f"context {context}: {why}",
        f"{written_slots(slots)}{' with' if slots == 1 else ', each with'} the whole context of {context} tokens",
    )
    return estimate.sizing(context, slots, reasons)


class MemoryEstimate:
    """Memory of one model on one engine, in bytes."""

    __slots__ = ("_retained_bytes", "_totals", "budget", "model", "shape")

    def __init__(self, shape: ModelShape, model: MemoryModel, budget: MemoryBudget) -> None:
        self.shape = shape
        self.model = model
        self.budget = budget
        self._retained_bytes = shape.small_linear_bytes(RETAINED_BELOW)
        # Context and slots -> the total computed before: the choice of both asks for the same ones again.
        self._totals: dict[tuple[int, int], int] = {}

    def without_correction(self) -> MemoryEstimate:
        """The estimate without the measured correction."""
        if not self.budget.correction_bytes:
            return self
        return MemoryEstimate(self.shape, self.model, msgspec.structs.replace(self.budget, correction_bytes=0))

    def cache(self, context: int) -> int:
        """Bytes of one slot's cache."""
        return kv_bytes(self.shape, context, self.model.cell_padding)

    def overhead(self, context: int, slots: int) -> int:
        """Bytes in addition to weights and cache, on all devices together."""
        return self._overhead(self._dimensions(context, slots))

    def total(self, context: int, slots: int) -> int:
        """Bytes of weights, cache and overhead."""
        known = self._totals.get((context, slots))
        if known is None:
            dims, shape = self._dimensions(context, slots), self.shape
            known = shape.weights_bytes + dims.cells * shape.kv_bytes_per_token + self._overhead(dims)
            self._totals[context, slots] = known
        return known

    def sizing(self, context: int, slots: int, reasons: tuple[str, ...]) -> Sizing:
        """The resources of a replica with this context and this number of slots."""
        dims, shape, on_cpu = self._dimensions(context, slots), self.shape, not self.budget.devices
        cache = dims.cells * shape.kv_bytes_per_token
        later = self.model.cpu_later(dims) if on_cpu else 0
        if on_cpu and self.model.cache_grows:
            later += cache
        return Sizing(
            context,
            slots,
            shape.weights_bytes,
            cache,
            self._overhead(dims),
            reasons,
            tensor_parallel=max(1, self.budget.devices) if self.model.splits == "tensors" else 1,
            file_pages_bytes=self.model.file_pages_bytes(shape, self.budget.cpu_flags) if on_cpu else 0,
            later_bytes=later,
            correction_bytes=self.budget.correction_bytes,
        )

    def _overhead(self, dims: Dimensions) -> int:
        if self.budget.devices:
            return self.model.cuda_overhead(dims) * self.budget.devices
        # A negative sum means that the estimate of weights or cache was too large.
        return max(0, self.model.cpu_overhead(dims) + self.budget.correction_bytes)

    def _dimensions(self, context: int, slots: int) -> Dimensions:
        shape = self.shape
        cells = _cells(context, self.model.cell_padding) if shape.kv_bytes_per_token else 0
        return Dimensions(
            shape.hidden,
            shape.vocab_size,
            cells * slots,
            context,
            slots,
            self._retained_bytes,
            shape.bitsandbytes,
            shape.linear_bits < 16,
            shape.pooled,
            shape.vision_elements,
        )


def kv_bytes(shape: ModelShape, context: int, padding: int) -> int:
    """Bytes of one slot's cache: the context and one cell for the answer's first token, rounded up to `padding`."""
    return _cells(context, padding) * shape.kv_bytes_per_token


def longest_prompt(shape: ModelShape, family_context: int, requested: int | None) -> int:
    """Maximum length of a prompt: the requested context or the family's, limited by the trained context."""
    context = requested or family_context
    # The first token of the answer needs a position after the prompt: an engine's cache is limited to the trained
    # context, or its limit counts prompt and answer together. A vector or a score needs none.
    reserved = 0 if shape.pooled else 1
    return min(context, shape.trained_context - reserved) if shape.trained_context > reserved else context


def chosen_context(estimate: MemoryEstimate, longest: int) -> int:
    """The context of a launch that names none, `longest` at most.

    A model without a cache, and a cache that takes memory only as the contexts fill, have the whole context. On GPUs
    the context is halved until a slot's cache takes at most `GPU_CONTEXT_SHARE`; on the CPU it is `MODEST_CONTEXT`.
    """
    budget = estimate.budget
    if not estimate.cache(longest) or (estimate.model.cache_grows and not budget.devices):
        return longest
    if not budget.devices:
        return min(longest, MODEST_CONTEXT)
    share = budget.available_bytes * GPU_CONTEXT_SHARE
    context = longest
    while estimate.cache(context) > share and context > MODEST_CONTEXT:
        context = max(MODEST_CONTEXT, (context + 1) // 2)
    return context


def _context_reason(shape: ModelShape, longest: int, context: int, requested: int | None) -> str:
    if context < longest:
        return f"the default; the model can have up to {longest}"
    if requested is not None and context == requested:
        return "requested"
    if shape.pooled and longest == shape.trained_context:
        return "the longest input by the files of the model"
    if shape.trained_context and longest == shape.trained_context - 1:
        asked = f"{requested} was requested, but " if requested is not None else ""
        return f"{asked}the model was trained on {shape.trained_context} tokens, and one is reserved for the answer"
    return "the default of the model family"


def written_slots(count: int) -> str:
    """``1 slot``, ``2 slots``."""
    return f"{count} slot{'' if count == 1 else 's'}"


def _cells(context: int, padding: int) -> int:
    return -(-(context + 1) // padding) * padding


def _fitting_context(estimate: MemoryEstimate, usable: int, context: int, requested: int | None) -> int:
    """The largest context that fits, in steps of `CONTEXT_STEP`; a requested context is never reduced."""
    minimum = context if requested else min(MIN_CONTEXT, context)
    required = estimate.total(minimum, 1)
    if requested is None and estimate.shape.kv_bytes_per_token > 0 and required <= usable:
        low, high = MIN_CONTEXT // CONTEXT_STEP, (context + 1) // CONTEXT_STEP
        # The memory grows with the context.
        steps = range(low, high + 1)
        most = bisect_right(steps, usable, key=lambda count: estimate.total(count * CONTEXT_STEP - 1, 1))
        if most and steps[most - 1] * CONTEXT_STEP - 1 >= MIN_CONTEXT:
            return steps[most - 1] * CONTEXT_STEP - 1
    tried = requested is None and minimum <= MIN_CONTEXT
    raise _does_not_fit(estimate, required, f"a context of {minimum} tokens", smaller_context=not tried)


def _fitting_slots(estimate: MemoryEstimate, context: int, usable: int) -> int:
    """The number of slots of a launch that names none.

    All caches together take no more memory than the rest of the model, if the engine takes this memory at its start on
    the CPU; and all after the first no more than a share of the free memory.
    """
    maximum, budget = estimate.model.default_slots, estimate.budget
    if not estimate.cache(context):
        return maximum
    share = GPU_EXTRA_SLOTS_SHARE if budget.devices else EXTRA_SLOTS_SHARE
    bound = min(usable, estimate.total(context, 1) + int(budget.available_bytes * share))
    if not budget.devices and not estimate.model.cache_grows:
        # Without the measured correction: the first measurement must not change the slots of the next launch.
        stated = estimate.without_correction()
        rest = stated.total(context, 1) - stated.cache(context)
        maximum = min(maximum, max(1, rest // stated.cache(context)))
    return next((slots for slots in range(maximum, 1, -1) if estimate.total(context, slots) <= bound), 1)


def _usable_text(budget: MemoryBudget) -> str:
    free, usable = budget.available_bytes, int(budget.available_bytes * budget.usable)
    part = f", of which a launch may use {usable / MIB:,.0f} MiB" if usable < free else ""
    return f"{free / MIB:,.0f} MiB are free{part}"


def _does_not_fit(estimate: MemoryEstimate, required: int, dimensions: str, *, smaller_context: bool = True) -> Problem:
    model = estimate.model
    smaller = f", a smaller --{model.context_option} or --{model.slots_option}" if smaller_context else ""
    return Problem(
        Code.DOES_NOT_FIT,
        f"The model with {dimensions} needs {required / MIB:,.0f} MiB of memory, and {_usable_text(estimate.budget)}.",
        stage="plan",
        hint=f"Use a smaller quantization or size{smaller}, or terminate another model.",
    )
