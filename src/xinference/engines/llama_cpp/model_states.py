"""The saved states of one model with their files, which all replicas of the model on this machine share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from xinference.engines.llama_cpp.prompt_beginnings import Prompt
from xinference.engines.llama_cpp.saved_states import SavedState, SavedStates
from xinference.engines.llama_cpp.state_files import Kept, StateFiles
from xinference.engines.request_placement import RequestPlacement, StateFigures, StateLimits

log = logging.getLogger(__name__)


class Counts:
    """What `StateFigures` counts."""

    __slots__ = ("direct", "restored", "saved", "waited")

    def __init__(self) -> None:
        self.saved = self.restored = self.direct = self.waited = 0


class LlamaCppStates:
    """The states of one model. Used from one event loop; files are copied and read in threads."""

    def __init__(self, limits: StateLimits, make: Callable[[LlamaCppStates, int], RequestPlacement]) -> None:
        """Take over the states that an earlier server has kept on the disk; those in memory have no index.

        Args:
            make: makes the placement of a replica with this number of slots.
        """
        self.limits = limits
        self._make = make
        self.files = StateFiles(limits.memory, limits.disk)
        self.saved = SavedStates(limits.memory_bytes, limits.disk_bytes)
        self.counts = Counts()
        self._kept: dict[str, Kept] = {}
        self._keeping: asyncio.Task[None] | None = None
        for kept in self.files.read_index():
            prompt = Prompt({bytes.fromhex(digest): size for digest, size in kept.ends})
            state = SavedState(kept.name, prompt, kept.bytes, kept.hits, in_memory=False, on_disk=True)
            self.saved.add(state)
            self._kept[kept.name] = kept

    @property
    def figures(self) -> StateFigures:
        counts, saved = self.counts, self.saved
        return StateFigures(
            counts.saved,
            counts.restored,
            counts.direct,
            counts.waited,
            sum(state.in_memory for state in saved.all()),
            saved.memory_bytes,
            saved.disk_bytes,
        )

    def placement(self, slots: int) -> RequestPlacement:
        return self._make(self, slots)

    def make_room(self, size: int) -> bool:
        """Delete states until there is room for one of this size, as far as its size is known."""
        names = self.saved.make_room(size)
        if names is None or not self.files.has_room(size):
            return False
        for name in names:
            self.files.delete(name)
        return True

    def add(self, name: str, prompt: Prompt, size: int) -> bool:
        """Add a state that an engine has written; returns whether it is kept."""
        if not self.files.is_whole(name, size) or not self.make_room(size):
            self.files.delete(name)
            return False
        self.saved.add(SavedState(name, prompt, size))
        self.counts.saved += 1
        return True

    async def make_readable(self, name: str) -> bool:
        """Check the file of a state in memory, or fetch it from the disk; returns whether an engine may read it."""
        state = self.saved.get(name)
        if state is None:
            return False
        if state.in_memory:
            if self.files.is_whole(name, state.bytes):
                return True
            log.warning("a saved state of a prompt was changed or deleted, and is not used: %s", name)
            self.saved.leave_memory(name)
            return False
        kept = self._kept.get(name)
        if kept is None or not self.make_room(state.bytes) or not await asyncio.to_thread(self.files.fetch, kept):
            log.warning("a saved state on the disk can't be used: %s", name)
            self._kept.pop(name, None)
            self.files.delete_kept(name)
            self.saved.leave_disk(name)
            return False
        state.in_memory = True
        return True

    def spoil(self, name: str) -> None:
        """The engine could not read a state."""
        self.saved.forget(name)
        self._kept.pop(name, None)
        self.files.delete(name)
        self.files.delete_kept(name)

    def keep_hot(self) -> None:
        """Begin to copy a state to the disk, if one is worth it."""
        if (self._keeping is None or self._keeping.done()) and (state := self.saved.for_disk()) is not None:
            self._keeping = asyncio.create_task(self._keep(state))

    async def wait_kept(self) -> None:
        """Wait until the copy that was begun is complete."""
        if self._keeping is not None:
            await self._keeping

    def set_memory(self, maximum: int) -> None:
        for name in self.saved.set_maximum(maximum):
            self.files.delete(name)

    def drop_memory(self) -> None:
        for state in list(self.saved.all()):
            if state.in_memory and not state.readers:
                self.saved.leave_memory(state.name)
                self.files.delete(state.name)

    async def _keep(self, state: SavedState) -> None:
        state.readers += 1  # it stays in memory meanwhile
        try:
            digest = await asyncio.to_thread(self.files.keep, state.name)
            for name in self.saved.disk_room(state) or ():
                self.saved.leave_disk(name)
                self._kept.pop(name, None)
                self.files.delete_kept(name)
            ends = [(digest.hex(), size) for digest, size in state.prompt.ends.items()]
            self._kept[state.name] = Kept(state.name, state.bytes, digest, state.hits, ends)
            state.on_disk = True
            await asyncio.to_thread(self.files.write_index, list(self._kept.values()))
        except OSError as error:
            log.warning("a saved state can't be copied to the disk: %s", error)
            self.saved.disk_maximum = 0
        finally:
            state.readers -= 1
