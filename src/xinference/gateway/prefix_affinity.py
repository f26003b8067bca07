"""Records which replicas computed which prefixes: engines cache the keys and values of prompts that they computed.

A prompt's prefixes are identified by hashes of the raw body's bytes up to fixed positions, so nothing is parsed or
tokenized. The common bytes of two prompts after the last common position are ignored: at most an eighth of the prefix.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

#: Bytes between the first positions. A shorter common prefix does not justify an uneven load.
STEP = 128
#: Beyond this number of bytes, the distance between positions is an eighth of the prefix.
EVEN_UP_TO = 1024
#: Position after which no more are placed: a longer prompt is identified by its first bytes.
LONGEST = 4 * 1024 * 1024
#: Maximum number of prefixes in each of two generations: some megabytes in total.
REMEMBERED = 16 * 1024
#: A prefix at which the known part of this many prompts has ended is a common beginning, not one conversation.
COMMON_ENDS = 3
#: Maximum number of replicas recorded for one prefix.
MAX_REPLICAS = 8


def _positions() -> tuple[int, ...]:
    positions = list(range(STEP, EVEN_UP_TO + 1, STEP))
    while positions[-1] < LONGEST:
        positions.append(positions[-1] + positions[-1] // 8)
    return tuple(positions)


POSITIONS = _positions()


def prefix_hashes(body: bytes, prompt_field: str) -> list[int]:
    """One hash for each position in the prompt, the shortest prefix first; each hash covers all bytes before it."""
    start = body.find(b'"%b"' % prompt_field.encode())
    # Anthropic's bodies have the system prompt in a separate field; a role "system" comes after the prompt's field.
    system = body.find(b'"system"', 0, start) if start > 0 else -1
    start = max(0, start if system < 0 else system)
    hashes: list[int] = []
    last, before, end = 0, start, len(body)
    for position in POSITIONS:
        if (after := start + position) > end:
            break
        last = hash((last, body[before:after]))
        hashes.append(last)
        before = after
    return hashes


class PrefixRecord:
    """The record of one prefix."""

    __slots__ = ("ends", "replicas")

    def __init__(self, replica: str) -> None:
        self.replicas: tuple[str, ...] = (replica,)
        """The replicas that computed the prefix, the newest first."""
        self.ends = 0
        """Number of prompts whose known part ended at this prefix."""

    @property
    def common(self) -> bool:
        """Whether many prompts begin with this prefix and then differ."""
        return self.ends >= COMMON_ENDS


class Prefixes:
    """Maps prefixes to the replicas that computed them; drops the older half when there are too many.

    Used from one event loop, so it needs no lock.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._maximum = remembered
        self._young: dict[int, PrefixRecord] = {}
        self._old: dict[int, PrefixRecord] = {}

    def __len__(self) -> int:
        """The number of recorded prefixes, at most twice `remembered`."""
        return len(self._young) + len(self._old)

    def longest(self, hashes: Sequence[int], among: Container[str]) -> PrefixRecord | None:
        """The longest prefix of a prompt that one of these replicas computed: others have exited with their caches."""
        for value in reversed(hashes):
            seen = self._young.get(value) or self._old.get(value)
            if seen is not None and any(replica in among for replica in seen.replicas):
                seen.ends += 1
                return seen
        return None

    def remember(self, hashes: Sequence[int], replica: str) -> None:
        """Record that `replica` computes the prompt with these prefixes."""
        for value in reversed(hashes):
            seen = self._young.get(value)
            if seen is None:
                seen = self._young[value] = self._old.pop(value) if value in self._old else PrefixRecord(replica)
            elif seen.replicas[0] == replica:
                return  # its shorter prefixes were recorded with it
            if seen.replicas[0] != replica:
                others = [other for other in seen.replicas if other != replica]
                seen.replicas = (replica, *others[: MAX_REPLICAS - 1])
        if len(self._young) > self._maximum:
            self._young, self._old = {}, self._young
