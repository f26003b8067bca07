"""Chooses how many tokens are drafted in a step, by what steps of each size have cost so far; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .drafts import Drafter

#: The lengths of drafts that are compared.
LENGTHS = (1, 2, 4, 8, 16)
#: The most tokens of a step with drafts, with the padding: each has a score for every token of the vocabulary.
MOST_TOKENS = 96
#: Drafts must gain this factor: costs are measured while other programs run.
LEAST_GAIN = 1.1
#: What a further token of a step is assumed to cost, as a share of a step without drafts, before it is measured.
ASSUMED_SHARE = 0.05
#: The most steps of one size that its mean counts, so that it follows a change.
MOST_SAMPLES = 16
#: A step counts at most as this many times the mean: others may have used the processor meanwhile.
MOST_OUTLIER = 2.0
#: After this number of steps, older measurements of drafts count half.
AGING_STEPS = 256


@dataclass
class Mean:
    """The running mean of a step's seconds."""

    seconds: float
    samples: float = 1

    def add(self, seconds: float) -> None:
        """Count a further step."""
        self.samples = min(self.samples + 1, MOST_SAMPLES)
        self.seconds += (min(seconds, MOST_OUTLIER * self.seconds) - self.seconds) / self.samples


class DraftLengths:
    """The costs of one batch's steps, and the length of drafts with which most tokens are computed per second."""

    def __init__(self, most: int) -> None:
        """`most`: the maximum length of a draft, at least 1."""
        self._lengths = sorted({min(length, most) for length in (*LENGTHS, most)})
        self._means: dict[tuple[int, int], Mean] = {}
        self._steps = 0

    def note(self, rows: int, length: int, seconds: float) -> None:
        """Count a step of this many sequences with drafts of this length; 0: without drafts."""
        known = self._means.get((rows, length))
        if known is None:
            self._means[rows, length] = Mean(seconds)
        else:
            known.add(seconds)
        self._steps += 1
        if self._steps % AGING_STEPS == 0:
            for (_, drafted), mean in self._means.items():
                mean.samples = mean.samples / 2 if drafted else mean.samples

    def choose(self, drafters: Sequence[Drafter]) -> int:
        """The length of the drafts of these sequences, one row each; 0: none, drafts would not pay."""
        rows = len(drafters)
        if not any(drafter.is_trusted for drafter in drafters) or (rows, 0) not in self._means:
            return 0
        best, best_tokens = 0, LEAST_GAIN * rows
        for length in self._lengths:
            if rows * (1 + length) > MOST_TOKENS:
                break
            cost = self.cost(rows, length)
            tokens = (rows + sum(drafter.expected(length) for drafter in drafters)) / cost
            if tokens > best_tokens and all(drafter.can_afford(cost, length) for drafter in drafters):
                best, best_tokens = length, tokens
        return best

    def cost(self, rows: int, length: int) -> float:
        """The time of a step, divided by that of a step without drafts; what is assumed counts as one measurement."""
        assumed = 1 + ASSUMED_SHARE * rows * length
        plain, known = self._means[rows, 0], self._means.get((rows, length))
        if known is None:
            return assumed
        return max(1.0, (assumed + known.seconds / plain.seconds * known.samples) / (1 + known.samples))
