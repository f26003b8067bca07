"""The speeds of one engine in relation to another one, round by round, and whether it is faster beyond noise. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Ratios = Mapping[str, float]
"""Figure -> the speed of the second engine in relation to the first one."""

#: A change is faster if the mean of all figures gains this factor,
GAIN = 1.03
#: and no figure loses more than what measurements of the same differ by.
LOSS = 0.98
#: In one of so many rounds, the mean may be lower: by chance, two equal engines seldom gain in all the others.
ROUNDS_FOR_ONE_LOSS = 7
#: A figure that is lower in each of so many rounds is slower, however little. Fewer rounds are not certain.
ROUNDS_OF_A_LOSS = 5


@dataclass(frozen=True)
class Comparison:
    """Some rounds in which both engines had the same requests."""

    rounds: Sequence[Ratios]
    """At least one; each has the same figures."""

    @property
    def medians(self) -> dict[str, float]:
        """Figure -> the median of the rounds."""
        return {name: statistics.median(each[name] for each in self.rounds) for name in self.rounds[0]}

    @property
    def mean(self) -> float:
        """The geometric mean of the medians."""
        return statistics.geometric_mean(self.medians.values())

    @property
    def is_faster(self) -> bool:
        """Whether the second engine gains more than noise, and loses in no figure."""
        gained = sum(statistics.geometric_mean(each.values()) > 1 for each in self.rounds)
        if gained < len(self.rounds) - len(self.rounds) // ROUNDS_FOR_ONE_LOSS:
            return False
        return self.mean >= GAIN and min(self.medians.values()) >= LOSS and not self._loses_always()

    @property
    def is_certain(self) -> bool:
        """Whether there are enough rounds to tell a gain from noise."""
        return len(self.rounds) >= ROUNDS_OF_A_LOSS

    def _loses_always(self) -> bool:
        """Whether a figure is lower in each round, of enough rounds."""
        if not self.is_certain:
            return False
        return any(all(each[name] < 1 for each in self.rounds) for name in self.rounds[0])
