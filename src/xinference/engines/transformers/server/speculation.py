"""Speculative decoding of one batch: the drafts of its next step, and the counts of drafted and accepted tokens."""

from __future__ import annotations

from collections.abc import Sequence as Sequences

from .draft_lengths import DraftLengths
from .drafts import Drafter
from .sequence import Sequence, common_length

#: The default maximum length of a draft.
MOST_DRAFTED = 16


class Speculation:
    """The drafts of a batch's sequences."""

    def __init__(self, most: int) -> None:
        """`most`: the maximum length of a draft; 0: there are none."""
        self.drafted = 0
        """Tokens that were computed as drafts, for the metrics."""
        self.accepted = 0
        """Those of them that were chosen."""
        self._lengths = DraftLengths(most) if most else None
        self._cost = 0.0
        """What the current step costs, as a multiple of one without drafts; 0: it has no drafts."""

    def propose(self, sequences: Sequences[Sequence]) -> list[list[int]]:
        """A draft for each of these sequences, which may be empty; never beyond its last token."""
        if self._lengths is None:
            return [[] for _ in sequences]
        drafters = [_drafter_of(sequence) for sequence in sequences]
        length = self._lengths.choose(drafters)
        self._cost = self._lengths.cost(len(drafters), length) if length else 0.0
        return [drafter.draft(length) for drafter in drafters]

    def note_step(self, rows: int, width: int, seconds: float) -> None:
        """Count the time of a step with this many positions in each row."""
        if self._lengths is not None:
            self._lengths.note(rows, width - 1, seconds)

    def note_tokens(self, sequence: Sequence, draft: list[int], chosen: list[int]) -> None:
        """Count the tokens that were chosen in a step, after this draft."""
        accepted = common_length(draft, chosen)
        self.drafted += len(draft)
        self.accepted += accepted
        if self._cost and sequence.drafter is not None:
            sequence.drafter.settle(self._cost, len(draft), accepted)


def _drafter_of(sequence: Sequence) -> Drafter:
    if sequence.drafter is None:
        sequence.drafter = Drafter(sequence.tokens, sequence.prompt_length, sequence.max_tokens)
    sequence.drafter.update()
    return sequence.drafter
