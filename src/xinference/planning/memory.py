"""How many bytes a launch takes, and the context and slots that fit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.engines.memory_model import KEPT_BELOW, Dimensions, MemoryModel
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import Sizing
from xinference.units import MIB

#: Most of the free memory that a launch may take.
USABLE_SHARE = 0.9
#: Most of the free memory that slots after the first may take together: a server shares its machine.
EXTRA_SLOTS_SHARE = 0.25
#: Smallest context that is still offered when memory is short.
LEAST_CONTEXT = 512
#: A context that was made to fit has one cell less than a multiple of this many tokens.
CONTEXT_STEP = 256


@dataclass(frozen=True)
class Room:
    """What one replica may take."""

    available_bytes: int
    """Free on all its devices together, or in the host's memory."""
    devices: int = 0
    """GPUs; 0: the CPU."""
    usable: float = USABLE_SHARE
    cpu_flags: frozenset[str] = frozenset()
    correction_bytes: int = 0
    """What an earlier measurement of this version showed beyond the estimate."""


def size_replica(
    shape: ModelShape,
    model: MemoryModel,
    room: Room,
    *,
    family_context: int,
    wanted_context: int | None = None,
    wanted_slots: int | None = None,
) -> Sizing:
    """Choose context and slots so that each slot holds the whole context at the same time.

    What the user asked for is kept or refused with the numbers; what they left open is made to fit.

    Raises:
        Problem: 400 ``does_not_fit`` with what is needed and what is free.
    """
    reasons: list[str] = []
    need = Need(shape, model, room)
    context = promised(shape, family_context, wanted_context, reasons)
    usable = int(room.available_bytes * room.usable)
    if need.total(context, 1) > usable:
        context = _smaller(need, usable, context, wanted_context)
        reasons.append(f"context {context}: all that the free memory holds beside the weights")
    slots = wanted_slots or _slots(need, context, usable)
    if need.total(context, slots) > usable:
        raise _does_not_fit(need, need.total(context, slots), f"{slots} slots of {context} tokens")
    reasons.append(f"{slots} slots, each with the whole context of {context} tokens")
    return need.sizing(context, slots, tuple(reasons))


@dataclass(frozen=True)
class Need:
    """The sum for one model on one engine."""

    shape: ModelShape
    model: MemoryModel
    room: Room

    def cache(self, context: int) -> int:
        """Bytes of one slot's cache."""
        return kv_bytes(self.shape, context, self.model.cell_padding)

    def overhead(self, context: int, slots: int) -> int:
        """Bytes beside weights and cache, on all devices together."""
        dims = self._dimensions(context, slots)
        if self.room.devices:
            return self.model.cuda_overhead(dims) * self.room.devices
        # A measurement may show less than nothing beside the rest only if the rest was wrong.
        return max(0, self.model.cpu_overhead(dims) + self.room.correction_bytes)

    def total(self, context: int, slots: int) -> int:
        return self.shape.weights_bytes + self.cache(context) * slots + self.overhead(context, slots)

    def sizing(self, context: int, slots: int, reasons: tuple[str, ...]) -> Sizing:
        on_cpu = not self.room.devices
        later = self.model.cpu_later(self._dimensions(context, slots)) if on_cpu else 0
        if on_cpu and self.model.cache_grows:
            later += self.cache(context) * slots
        return Sizing(
            context,
            slots,
            self.shape.weights_bytes,
            self.cache(context) * slots,
            self.overhead(context, slots),
            reasons,
            tensor_parallel=max(1, self.room.devices) if self.model.splits == "tensors" else 1,
            file_pages_bytes=self.model.file_pages_bytes(self.shape, self.room.cpu_flags) if on_cpu else 0,
            later_bytes=later,
            correction_bytes=self.room.correction_bytes,
        )

    def _dimensions(self, context: int, slots: int) -> Dimensions:
        cells = _cells(context, self.model.cell_padding) if self.shape.kv_bytes_per_token else 0
        shape = self.shape
        return Dimensions(
            hidden=shape.hidden,
            vocab=shape.vocab_size,
            cells=cells * slots,
            longest=context,
            slots=slots,
            kept_bytes=shape.small_linear_bytes(KEPT_BELOW),
            bitsandbytes=shape.bitsandbytes,
            packed=shape.linear_bits < 16,
        )


def kv_bytes(shape: ModelShape, context: int, padding: int) -> int:
    """Bytes of one slot's cache: the context, one more cell for the first token of the answer, rounded up."""
    return _cells(context, padding) * shape.kv_bytes_per_token


def promised(shape: ModelShape, family_context: int, wanted: int | None, reasons: list[str]) -> int:
    """The longest prompt: what was asked for or the family says, but no more than the model was trained on."""
    asked = wanted or family_context
    # An answer needs one token's place beside the prompt: an engine keeps no more than the model was trained on, or
    # counts both in its limit.
    most = shape.trained_context - 1 if shape.trained_context > 1 else asked
    if asked > most:
        reasons.append(
            f"context {most}: the model was trained on {shape.trained_context} tokens, and one is kept for the answer"
        )
        return most
    reasons.append(f"context {asked}: {'as asked' if wanted else 'the model family says so'}")
    return asked


def _cells(context: int, padding: int) -> int:
    return -(-(context + 1) // padding) * padding


def _smaller(need: Need, usable: int, context: int, wanted: int | None) -> int:
    """The largest context that fits, of whole steps."""
    if wanted is None and need.shape.kv_bytes_per_token > 0:
        low, high = LEAST_CONTEXT // CONTEXT_STEP, (context + 1) // CONTEXT_STEP
        fitting = [steps for steps in range(low, high + 1) if need.total(steps * CONTEXT_STEP - 1, 1) <= usable]
        if fitting and fitting[-1] * CONTEXT_STEP - 1 >= LEAST_CONTEXT:
            return fitting[-1] * CONTEXT_STEP - 1
    least = context if wanted else min(LEAST_CONTEXT, context)
    raise _does_not_fit(need, need.total(least, 1), f"a context of {least} tokens")


def _slots(need: Need, context: int, usable: int) -> int:
    most = need.model.default_slots
    if not need.cache(context):
        return most
    # What is free on a GPU is there to be used; the host's memory belongs to others, too.
    share = 1.0 if need.room.devices else EXTRA_SLOTS_SHARE
    bound = min(usable, need.total(context, 1) + int(need.room.available_bytes * share))
    return next((slots for slots in range(most, 1, -1) if need.total(context, slots) <= bound), 1)


def _does_not_fit(need: Need, needed: int, what: str) -> Problem:
    available, model = need.room.available_bytes, need.model
    return Problem(
        "does_not_fit",
        400,
        f"The model with {what} needs {needed / MIB:,.0f} MiB, and {available / MIB:,.0f} MiB are free.",
        stage="plan",
        hint=f"Take a smaller quantization or size, a smaller --{model.context_option} or --{model.slots_option}, "
        "or terminate another model.",
    )
