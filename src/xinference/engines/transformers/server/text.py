"""Decodes token ids to text as they arrive: complete characters only, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: The decoder's output for bytes that are not a complete character (yet).
BROKEN = "\ufffd"
#: Number of prompt tokens that are decoded before the answer, so that its first space is right.
CONTEXT_TOKENS = 4
#: A character has at most four bytes, so a longer run of broken tokens is not the beginning of one.
MOST_BROKEN_TOKENS = 4

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """Decodes one sequence, token by token.

    A token's text depends on its neighbours (SentencePiece drops a space at the beginning, a character may span
    several tokens), so each new piece is the difference of two decodings that start at the same earlier token.
    """

    def __init__(self, decode: Decode, before: Sequence[int] = ()) -> None:
        """`before`: tokens that the answer continues; without them the answer is decoded as a separate text."""
        self._decode = decode
        self._ids = list(before[-CONTEXT_TOKENS:])
        self._start = 0
        self._read = len(self._ids)

    def add(self, token: int) -> str:
        """The text that is final now; empty while a character is incomplete."""
        self._ids.append(token)
        known, whole = self._decode(self._ids[self._start : self._read]), self._decode(self._ids[self._start :])
        waiting = len(self._ids) - self._read
        if len(whole) <= len(known) or (whole.endswith(BROKEN) and waiting <= MOST_BROKEN_TOKENS):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return whole[len(known) :]

    def finish(self) -> str:
        """The rest at the end, without an incomplete character."""
        known, whole = self._decode(self._ids[self._start : self._read]), self._decode(self._ids[self._start :])
        self._start = self._read = len(self._ids)
        return whole[len(known) :].rstrip(BROKEN)


class StopStrings:
    """Truncates a text before the first stop string, and withholds a possible beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._withheld = ""
        self.found = False
        self.text: str | None = None
        """The stop string that was found."""
        self.rest = ""
        """The text after the stop string."""

    def add(self, text: str) -> str:
        """The text that can be sent; after a stop string was found, nothing more may be added."""
        if not self._stops:
            return text
        text = self._withheld + text
        places = [(place, stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            place, stop = min(places)
            self.found, self.text = True, stop
            self._withheld, self.rest = "", text[place + len(stop) :]
            return text[:place]
        keep = max(_overlap(text, stop) for stop in self._stops)
        shown, self._withheld = text[: len(text) - keep], text[len(text) - keep :]
        return shown

    def finish(self) -> str:
        """The withheld text, which is not a stop string."""
        withheld, self._withheld = self._withheld, ""
        return withheld


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
