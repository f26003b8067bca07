"""How many bytes a launch takes, and the context and slots that fit. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from xinference.errors import Problem
from xinference.planning.launch_plan import Sizing

MIB = 1024 * 1024
#: llama.cpp rounds each sequence's cache up to this many cells.
CELL_PADDING = 256
DEFAULT_SLOTS = 4
#: Most of the free memory that a launch may take.
USABLE_SHARE = 0.9
#: Most of the free memory that slots after the first may take together: a server shares its machine.
EXTRA_SLOTS_SHARE = 0.25
#: Smallest context that is still offered when memory is short.
LEAST_CONTEXT = 512


@dataclass(frozen=True)
class ModelShape:
    """What the weight file says; bytes and tokens."""

    weights_bytes: int
    kv_bytes_per_token: int
    trained_context: int
    vocab_size: int


def size_launch(
    shape: ModelShape,
    *,
    available_bytes: int,
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
    context = _promised(shape, family_context, wanted_context, reasons)
    overhead = 96 * MIB + 512 * shape.vocab_size * 4
    room = int(available_bytes * USABLE_SHARE) - shape.weights_bytes - overhead
    per_slot = kv_bytes(shape, context)
    if per_slot > room:
        context = _smaller(shape, room, context, wanted_context, available_bytes, overhead)
        reasons.append(f"context {context}: all that the free memory holds beside the weights")
        per_slot = kv_bytes(shape, context)
    slots = wanted_slots or _slots(per_slot, min(room, per_slot + int(available_bytes * EXTRA_SLOTS_SHARE)))
    if per_slot * slots > room:
        raise _does_not_fit(
            shape.weights_bytes + overhead + per_slot * slots, available_bytes, f"{slots} slots of {context} tokens"
        )
    reasons.append(f"{slots} slots, each with the whole context of {context} tokens")
    return Sizing(context, slots, shape.weights_bytes, per_slot * slots, overhead, tuple(reasons))


def kv_bytes(shape: ModelShape, context: int) -> int:
    """Bytes of one slot's cache: the context, one more cell for the first token of the answer, rounded up."""
    cells = -(-(context + 1) // CELL_PADDING) * CELL_PADDING
    return cells * shape.kv_bytes_per_token


def _promised(shape: ModelShape, family_context: int, wanted: int | None, reasons: list[str]) -> int:
    asked = wanted or family_context
    # llama.cpp never gives a sequence more cells than the model was trained on, and an answer needs one.
    most = shape.trained_context - 1 if shape.trained_context > 1 else asked
    if asked > most:
        reasons.append(
            f"context {most}: the model was trained on {shape.trained_context} tokens, and one is kept for the answer"
        )
        return most
    reasons.append(f"context {asked}: {'as asked' if wanted else 'the model family says so'}")
    return asked


def _smaller(
    shape: ModelShape, room: int, context: int, wanted: int | None, available_bytes: int, overhead: int
) -> int:
    if wanted is None and shape.kv_bytes_per_token > 0:
        cells = max(0, room) // shape.kv_bytes_per_token // CELL_PADDING * CELL_PADDING
        if cells - 1 >= LEAST_CONTEXT:
            return cells - 1
    least = context if wanted else min(LEAST_CONTEXT, context)
    raise _does_not_fit(
        shape.weights_bytes + overhead + kv_bytes(shape, least), available_bytes, f"a context of {least} tokens"
    )


def _slots(per_slot: int, room: int) -> int:
    return max(1, min(DEFAULT_SLOTS, room // per_slot)) if per_slot > 0 else DEFAULT_SLOTS


def _does_not_fit(needed: int, available: int, what: str) -> Problem:
    return Problem(
        "does_not_fit",
        400,
        f"The model with {what} needs {needed / MIB:,.0f} MiB, and {available / MIB:,.0f} MiB are free.",
        stage="plan",
        hint="Take a smaller quantization or size, a smaller --n_ctx or --n_parallel, or terminate another model.",
    )
