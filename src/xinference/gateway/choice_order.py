"""The order in which the choices of a streamed chat begin.

OpenAI's SDK adds each choice to the end of its list, so that a stream whose second choice begins first fails there.
"""

from __future__ import annotations

import msgspec

DATA = b"data: "


class ChoiceOrder:
    """Holds back the events of a choice until the choices before it have begun; each call gets complete events."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._begun = 0
        """The number of choices that have begun."""
        self._held: dict[int, list[bytes]] = {}

    def __call__(self, chunk: bytes) -> bytes:
        if self._begun >= self._count:
            return chunk
        out: list[bytes] = []
        for text in chunk.split(b"\n\n"):
            if data := text.strip():
                self._take(data, out)
        return b"".join(data + b"\n\n" for data in out)

    def _take(self, data: bytes, out: list[bytes]) -> None:
        index = _choice_of(data)
        if index is None:  # the end of the stream, or an error: nothing follows that begins a choice
            for held in sorted(self._held):
                out += self._held[held]
            self._held.clear()
            out.append(data)
        elif index <= self._begun:
            out.append(data)
            if index == self._begun:
                self._begin(out)
        else:
            self._held.setdefault(index, []).append(data)

    def _begin(self, out: list[bytes]) -> None:
        self._begun += 1
        while self._begun in self._held:
            out += self._held.pop(self._begun)
            self._begun += 1


def _choice_of(data: bytes) -> int | None:
    """The number of the choice of an event; None: the event has none."""
    if not data.startswith(DATA) or data.endswith(b"[DONE]"):
        return None
    choices = msgspec.json.decode(data[len(DATA) :]).get("choices")
    index = choices[0].get("index") if choices else None
    return index if isinstance(index, int) else None
