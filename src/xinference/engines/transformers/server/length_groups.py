"""Chooses which of the waiting inputs are computed together: inputs of similar lengths, the oldest one among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class GroupLimits:
    """The limits of one group, in tokens."""

    most_tokens: int
    """Tokens with padding; one input alone may have more."""
    free_padding: int
    """Padding that costs less than a computation of its own."""
    padding_share: float
    """Share of a group's tokens that may be padding, if that is more than `free_padding`."""


def cpu_limits(hidden: int) -> GroupLimits:
    """The limits on a CPU, where padding costs as much as tokens, for a model of this width.

    A group of its own costs about as much as 60 tokens of a model with a width of 384 (measured), and the cost of a
    token grows with the square of the width. The activations of a group have about the same size for every width.
    """
    width = max(1, hidden)
    return GroupLimits(
        most_tokens=min(max(3_000_000 // width, 1024), 8192), free_padding=9_000_000 // width**2, padding_share=0.03
    )


def packed_limits(hidden: int) -> GroupLimits:
    """The limits on a CPU for a model that computes padding only in its attention, a small part of a token's cost."""
    plain = cpu_limits(hidden)
    return GroupLimits(plain.most_tokens, free_padding=8 * plain.free_padding, padding_share=0.5)


#: A GPU computes a large group about as fast as a small one.
GPU_LIMITS = GroupLimits(most_tokens=16384, free_padding=4096, padding_share=0.3)


def next_group(lengths: Sequence[int], limits: GroupLimits) -> list[int]:
    """The positions of the inputs to compute next; `lengths` are those of the waiting inputs, the oldest first.

    >>> next_group([5, 90, 5, 88, 4], GroupLimits(most_tokens=200, free_padding=2, padding_share=0))
    [0, 2, 4]

    A rest that would cost more as a group of its own than as padding belongs to the group:

    >>> next_group([16] * 31 + [17], GroupLimits(most_tokens=4096, free_padding=30, padding_share=0)) == [*range(31)]
    True
    >>> next_group([16] * 31 + [17], GroupLimits(most_tokens=4096, free_padding=61, padding_share=0)) == [*range(32)]
    True
    """
    order = sorted(range(len(lengths)), key=lambda position: (lengths[position], position))
    first = last = order.index(0)
    tokens = lengths[0]
    while True:
        longer = order[last + 1] if last + 1 < len(order) else None
        shorter = order[first - 1] if first else None
        fits_longer = longer is not None and _fits(limits, tokens + lengths[longer], lengths[longer], last - first + 2)
        fits_shorter = shorter is not None and _fits(
            limits, tokens + lengths[shorter], lengths[order[last]], last - first + 2
        )
        if not (fits_longer or fits_shorter):
            first, last = _with_rests([lengths[position] for position in order], first, last, limits)
            return sorted(order[first : last + 1])
        if fits_longer and (
            not fits_shorter or lengths[order[last + 1]] - lengths[0] <= lengths[0] - lengths[order[first - 1]]
        ):
            last += 1
            tokens += lengths[order[last]]
        else:
            first -= 1
            tokens += lengths[order[first]]


def _with_rests(ordered: Sequence[int], first: int, last: int, limits: GroupLimits) -> tuple[int, int]:
    """The ends of a group with all longer or all shorter inputs, if their padding costs less than a further group."""
    rest = ordered[last + 1 :]
    padding = ordered[-1] * (len(ordered) - first) - ordered[last] * (last - first + 1) - sum(rest)
    if rest and padding < limits.free_padding and ordered[-1] * (len(ordered) - first) <= limits.most_tokens:
        last = len(ordered) - 1
    rest = ordered[:first]
    padding = ordered[last] * first - sum(rest)
    if rest and padding < limits.free_padding and ordered[last] * (last + 1) <= limits.most_tokens:
        first = 0
    return first, last


def _fits(limits: GroupLimits, tokens: int, longest: int, count: int) -> bool:
    padded = longest * count
    allowed = max(limits.free_padding, limits.padding_share * padded)
    return padded <= limits.most_tokens and padded - tokens <= allowed
