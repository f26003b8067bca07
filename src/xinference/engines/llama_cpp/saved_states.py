"""The saved states of one model's prompts: which there are, how large they are, and which are deleted for others.

Plain bookkeeping: no file is touched here. Deleted first are states that no request has used, then those whose last use
is the longest ago.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from xinference.engines.llama_cpp.prompt_beginnings import Digest, Prompt

#: Number of uses from which on a state is worth a copy on the disk.
DISK_HITS = 2
#: Number of beginnings that are remembered to recognize one that comes again.
REMEMBERED = 4096


@dataclass(slots=True)
class SavedState:
    """One file with the state of a prompt."""

    name: str
    prompt: Prompt
    bytes: int
    """The size of the file."""
    hits: int = 0
    used: int = 0
    """The number of the last use; higher is later."""
    readers: int = 0
    """Requests that read it now; it is not deleted."""
    in_memory: bool = True
    on_disk: bool = False


class SavedStates:
    """The states of one model; those in memory have at most `maximum` bytes, those on disk at most `disk_maximum`."""

    def __init__(self, maximum: int, disk_maximum: int = 0) -> None:
        self.maximum, self.disk_maximum = maximum, disk_maximum
        self._states: dict[str, SavedState] = {}
        self._uses = 0
        self._came: OrderedDict[Digest, None] = OrderedDict()
        """The beginnings that have come to any replica, the newest last."""

    def has_come(self, prompt: Prompt, size: int) -> bool:
        """Whether a beginning of the prompt of at least this size has come before, to any replica."""
        return any(each >= size and digest in self._came for digest, each in prompt.ends.items())

    def note_coming(self, prompt: Prompt, size: int) -> None:
        """Remember the beginnings of a prompt of at least this size."""
        for digest, each in prompt.ends.items():
            if each >= size:
                self._came[digest] = None
                self._came.move_to_end(digest)
        while len(self._came) > REMEMBERED:
            self._came.popitem(last=False)

    def all(self) -> Collection[SavedState]:
        return self._states.values()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, name: str) -> SavedState | None:
        return self._states.get(name)

    @property
    def memory_bytes(self) -> int:
        return sum(state.bytes for state in self._states.values() if state.in_memory)

    @property
    def disk_bytes(self) -> int:
        return sum(state.bytes for state in self._states.values() if state.on_disk)

    def best(self, prompt: Prompt) -> tuple[SavedState | None, int]:
        """The state with the longest beginning of the prompt, and the length of that; of equal ones the smallest."""
        found: SavedState | None = None
        length = 0
        for state in self._states.values():
            common = prompt.common(state.prompt)
            if common > length or (found is not None and common == length and _better(state, found)):
                found, length = state, common
        return found, length

    def expected_bytes(self, size: int) -> int:
        """The size of the file of a prompt with this length, by the states there are; 0: not known."""
        ratios = [state.bytes / state.prompt.size for state in self._states.values() if state.prompt.size]
        return int(max(ratios, default=0) * size)

    def make_room(self, needed: int) -> list[str] | None:
        """The names of the states that leave memory so that `needed` bytes are free; None: there can't be so many.

        The states are removed here; their files are the caller's.
        """
        if needed > self.maximum:
            return None
        names = self._least_used(needed)
        held = self.memory_bytes - sum(self._states[name].bytes for name in names)
        if held + needed > self.maximum:
            return None
        for name in names:
            self.leave_memory(name)
        return names

    def set_maximum(self, maximum: int) -> list[str]:
        """Set the maximum; returns the names of the states that leave memory for it, as far as nobody reads them."""
        self.maximum = maximum
        names = self._least_used(0)
        for name in names:
            self.leave_memory(name)
        return names

    def add(self, state: SavedState) -> None:
        """Add a state for which there is room."""
        self._states[state.name] = state
        self._note(state)

    def touch(self, state: SavedState) -> None:
        """A request has the beginning of the state, in its slot or restored."""
        state.hits += 1
        self._note(state)

    def begin_use(self, state: SavedState) -> None:
        state.readers += 1
        self.touch(state)

    def end_use(self, state: SavedState) -> None:
        state.readers -= 1

    def leave_memory(self, name: str) -> None:
        state = self._states.get(name)
        if state is not None:
            state.in_memory = False
            self._forget_unless_kept(state)

    def leave_disk(self, name: str) -> None:
        state = self._states.get(name)
        if state is not None:
            state.on_disk = False
            self._forget_unless_kept(state)

    def forget(self, name: str) -> None:
        """The file of this state is missing or damaged."""
        self._states.pop(name, None)

    def for_disk(self) -> SavedState | None:
        """A state that is used often and has no copy on the disk yet, if there is room or a less used one."""
        wanted = [each for each in self._states.values() if each.in_memory and not each.on_disk and _is_hot(each)]
        best = max(wanted, key=lambda each: (each.hits, each.used), default=None)
        if best is None or best.bytes > self.disk_maximum:
            return None
        return best if self.disk_room(best) is not None else None

    def disk_room(self, state: SavedState) -> list[str] | None:
        """The states that leave the disk for `state`: less used ones only; None: those are not enough."""
        held, names = self.disk_bytes, []
        for each in sorted((each for each in self._states.values() if each.on_disk), key=lambda each: each.used):
            if held + state.bytes <= self.disk_maximum:
                break
            if each.hits <= state.hits and not each.readers:
                held -= each.bytes
                names.append(each.name)
        return names if held + state.bytes <= self.disk_maximum else None

    def _least_used(self, needed: int) -> list[str]:
        """The names of states in memory whose bytes are needed: those without a use, then those of the oldest use."""
        held, names = self.memory_bytes, []
        for state in sorted(self._states.values(), key=lambda each: (each.hits > 0, each.used)):
            if held + needed <= self.maximum:
                break
            if state.in_memory and not state.readers:
                held -= state.bytes
                names.append(state.name)
        return names

    def _note(self, state: SavedState) -> None:
        self._uses += 1
        state.used = self._uses

    def _forget_unless_kept(self, state: SavedState) -> None:
        if not state.in_memory and not state.on_disk:
            del self._states[state.name]


def _is_hot(state: SavedState) -> bool:
    return state.hits >= DISK_HITS


def _better(state: SavedState, other: SavedState) -> bool:
    """Whether it is quicker to restore: in memory, and smaller."""
    return (state.in_memory, -state.bytes) > (other.in_memory, -other.bytes)
