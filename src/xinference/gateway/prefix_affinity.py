"""Which replica has seen the beginning of a prompt: engines keep the keys and values of prompts that they computed.

A prompt's prefixes are told by hashes of the raw body's bytes up to fixed places, so nothing is parsed or tokenized
for it. What two prompts share beyond the last common place is not seen: at most an eighth of it.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Bytes between the first places; a shorter prompt is not worth a detour.
STEP = 128
#: From here on, the places are an eighth of the prefix apart.
EVEN_UP_TO = 1024
#: Where the last place is: what is longer is told by its beginning.
LONGEST = 4 * 1024 * 1024
#: Prefixes remembered in each of two generations: together some megabytes.
REMEMBERED = 16 * 1024
#: A prefix at which the common part of so many prompts ended belongs to no conversation: they all begin with it.
COMMON_ENDS = 3
#: Replicas remembered of one prefix.
MOST_REPLICAS = 8


def _places() -> tuple[int, ...]:
    found = list(range(STEP, EVEN_UP_TO + 1, STEP))
    while found[-1] < LONGEST:
        found.append(found[-1] + found[-1] // 8)
    return tuple(found)


PLACES = _places()


def prefix_hashes(body: bytes, prompt_field: str) -> list[int]:
    """One hash for each place in the prompt, the shortest prefix first; each covers all before it."""
    start = body.find(b'"%b"' % prompt_field.encode())
    # Anthropic's bodies have the system prompt beside the messages; a role of this name comes after them.
    system = body.find(b'"system"', 0, start) if start > 0 else -1
    start = max(0, start if system < 0 else system)
    hashes: list[int] = []
    last, before, end = 0, start, len(body)
    for place in PLACES:
        if (after := start + place) > end:
            break
        last = hash((last, body[before:after]))
        hashes.append(last)
        before = after
    return hashes


class Seen:
    """What is known of one prefix."""

    __slots__ = ("ends", "replicas")

    def __init__(self, replica: str) -> None:
        self.replicas: tuple[str, ...] = (replica,)
        """Those that computed it, the last one first."""
        self.ends = 0
        """How often the known part of a prompt has ended here."""

    @property
    def common(self) -> bool:
        """Whether many prompts begin with it, and then differ."""
        return self.ends >= COMMON_ENDS


class Prefixes:
    """Remembers which replicas computed which prefixes; the oldest half is forgotten when there are too many.

    It is used from one event loop, so it needs no lock.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._most = remembered
        self._young: dict[int, Seen] = {}
        self._old: dict[int, Seen] = {}

    def __len__(self) -> int:
        """Prefixes remembered now; at most twice the number given."""
        return len(self._young) + len(self._old)

    def longest(self, hashes: Sequence[int]) -> Seen | None:
        """The longest known prefix of a prompt."""
        for value in reversed(hashes):
            seen = self._young.get(value) or self._old.get(value)
            if seen is not None:
                seen.ends += 1
                return seen
        return None

    def remember(self, hashes: Sequence[int], replica: str) -> None:
        """`replica` computes the prompt with these prefixes now."""
        for value in reversed(hashes):
            seen = self._young.get(value)
            if seen is None:
                seen = self._young[value] = self._old.pop(value) if value in self._old else Seen(replica)
            elif seen.replicas[0] == replica:
                return  # the shorter ones were remembered with it
            if seen.replicas[0] != replica:
                others = [other for other in seen.replicas if other != replica]
                seen.replicas = (replica, *others[: MOST_REPLICAS - 1])
        if len(self._young) > self._most:
            self._young, self._old = {}, self._young
