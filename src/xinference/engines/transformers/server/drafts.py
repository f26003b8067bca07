"""Drafts the next tokens of a sequence from equal earlier ones (prompt lookup); pure.

If the last tokens occurred earlier in the prompt or answer, those that followed there are the prediction. It is
compared with each token that the sequence gets, whether it was a draft or not. So a sequence that does not repeat
itself is known as such without computing a wrong draft.
"""

from __future__ import annotations

from collections.abc import Sequence

#: The number of equal tokens that select an earlier place.
NGRAM = 3
#: Generated tokens that must have followed the earlier text, at first, before tokens are drafted.
FIRST_NEEDED = 2
#: Maximum of it: wrong drafts double it.
MOST_NEEDED = 64
#: The weight of the earlier predictions after a further one.
MEMORY = 0.95
#: What is assumed of a new sequence: predictions that were right, and wrong.
PRIOR_RIGHT, PRIOR_WRONG = 1.0, 1.0
#: No more than this share of the predictions is expected to be right, however many were.
MOST_SHARE = 0.99
#: The share of the time of an answer without drafts that all drafts of its batch may cost it.
ALLOWED_LOSS = 0.01


class NgramIndex:
    """Finds the latest earlier occurrence of the last tokens of a list, which grows between the calls."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = tokens
        self._next_place: dict[tuple[int, ...], int] = {}
        self._indexed = NGRAM
        """The first place whose preceding tokens are not in the index."""

    def find(self) -> int | None:
        """The place of the token that followed the last tokens before; None: they did not occur before."""
        tokens, first, last = self._tokens, self._indexed, len(self._tokens)
        if last < NGRAM:
            return None
        if last > first:
            part = tokens[first - NGRAM : last - 1]
            ngrams = zip(*(part[i:] for i in range(NGRAM)), strict=False)
            self._next_place.update(zip(ngrams, range(first, last), strict=True))
            self._indexed = last
        return self._next_place.get(tuple(tokens[last - NGRAM :]))


class Drafter:
    """The predictions of one sequence, and the share of them that was right."""

    def __init__(self, tokens: Sequence[int], prompt_length: int, max_tokens: int) -> None:
        """`tokens`: the list of the prompt and the answer, which the sequence extends by at most `max_tokens`."""
        self.needed = FIRST_NEEDED
        """Generated tokens that must have followed the earlier text."""
        self._tokens, self._prompt_length = tokens, prompt_length
        self._most_tokens = prompt_length + max_tokens
        self._index = NgramIndex(tokens)
        self._seen = len(tokens)
        self._place: int | None = None
        """The place of the token that is predicted next."""
        self._followed = 0
        """Generated tokens that have followed the earlier text, up to here."""
        self._right, self._wrong = PRIOR_RIGHT, PRIOR_WRONG
        self._lost = 0.0
        """The time that drafts have cost the answer, less what they have gained, in steps without drafts."""

    def update(self) -> None:
        """Compare the new tokens with the predictions."""
        for place in range(self._seen, len(self._tokens)):
            if self._place is not None:
                self._compare(self._tokens[place] == self._tokens[self._place])
        self._seen = len(self._tokens)
        if self._place is None:
            self._place = self._index.find()
            self._followed = min(NGRAM, self._seen - self._prompt_length)

    @property
    def is_trusted(self) -> bool:
        """Whether enough of the answer has followed the earlier text."""
        return self._place is not None and self._followed >= self.needed

    def expected(self, length: int) -> float:
        """The number of right tokens in a draft of this length, on average; 0: the prediction is not trusted."""
        if not self.is_trusted:
            return 0.0
        share = min(MOST_SHARE, self._right / (self._right + self._wrong))
        return share * (1 - share ** min(length, self._room)) / (1 - share)

    def can_afford(self, cost: float, length: int) -> bool:
        """Whether the answer is hardly later after such a step than without drafts.

        Args:
            cost: the time of the step; 1 is that of a step without drafts.
            length: the length of the drafts.
        """
        allowed = ALLOWED_LOSS * (len(self._tokens) - self._prompt_length)
        return self._lost + cost - 1 - self.expected(length) <= max(self._lost, allowed)

    def draft(self, length: int) -> list[int]:
        """At most this many predicted tokens; empty: there is no prediction.

        A text that repeats itself up to its end is predicted to continue so.
        """
        length = min(length, self._room)
        if self._place is None or length < 1:
            return []
        found = list(self._tokens[self._place : self._place + length])
        period = len(found)
        while len(found) < length:
            found.append(found[-period])
        return found

    def settle(self, cost: float, drafted: int, accepted: int) -> None:
        """Take the result of a step with drafts, in which this sequence had one of `drafted` tokens.

        After a wrong first token, more tokens must have followed before the next draft.
        """
        self._lost += cost - 1 - accepted
        if drafted and accepted:
            self.needed = max(FIRST_NEEDED, self.needed // 2)
        elif drafted:
            self.needed = min(MOST_NEEDED, self.needed * 2)

    @property
    def _room(self) -> int:
        """The maximum length of a draft: a further token is chosen after it."""
        return self._most_tokens - len(self._tokens) - 1

    def _compare(self, is_right: bool) -> None:
        assert self._place is not None
        counts = self._followed >= 1
        self._right = self._right * MEMORY + is_right if counts else self._right
        self._wrong = self._wrong * MEMORY + (not is_right) if counts else self._wrong
        self._followed = self._followed + 1 if is_right else 0
        self._place = self._place + 1 if is_right else None
