"""Records which prompt is in which slot of one replica, and decides what a new request needs; no I/O.

A slot that is idle keeps its prompt for the next request of a conversation. Before it gets another prompt, its state is
saved, if it has a text of its own that no saved state has.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal

from xinference.engines.llama_cpp.prompt_beginnings import UNKNOWN, Prompt
from xinference.engines.llama_cpp.saved_states import SavedState, SavedStates

#: Lengths below are in bytes of the request's text; a token has about four.
#: A common beginning that is shorter is computed again.
MIN_COMMON = 1024
#: A prompt with a longer part to compute is computed by a request of its own first, so that others may have its state.
PREFILL = 3072
#: Text of its own from which on the state of a slot is saved before the slot gets another prompt.
MIN_SAVE = 1024
#: Time after which a slot is surely idle whose client has left, in seconds.
ABORT_SECONDS = 2.0

What = Literal["save", "restore", "erase"]


@dataclass(frozen=True, slots=True)
class Action:
    """One request to the engine about a slot."""

    what: What
    slot: int
    state: str = ""
    """The name of the state to write or to read."""
    prompt: Prompt = UNKNOWN
    """The prompt whose state is written."""
    leader: Leader | None = None
    """What requests wait for that begin like the prompt while its state is written."""


@dataclass(slots=True)
class Slot:
    """One slot of the engine."""

    number: int
    prompt: Prompt | None = None
    """The prompt whose keys and values are in it; None: it is empty."""
    busy: bool = False
    used: int = 0
    idle_from: float = 0.0
    """It may compute until then, because its client has left."""

    @property
    def size(self) -> int:
        """The length of its prompt."""
        return 0 if self.prompt is None else self.prompt.size


@dataclass(slots=True, eq=False)
class Leader:
    """A prompt that is being computed or saved, and the requests that wait for it."""

    prompt: Prompt
    computes: int = 0
    """The length of the part that is not in the slot; 0: the prompt is only saved."""
    is_known: bool = False
    """Whether a part of it has come before."""
    waiting: int = 0
    done: bool = False
    computed: bool = False
    saved: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """The slot of a request, and what comes before it."""

    slot: int
    prompt: Prompt
    actions: tuple[Action, ...] = ()
    leader: Leader | None = None
    """Set if the prompt is computed by a request of its own."""
    common: int = 0
    """The length of the beginning that is not computed."""
    restored: SavedState | None = None
    held: int | None = None
    """Another slot that is busy until the actions are done."""
    further: tuple[int, ...] = ()
    """The slots of further choices."""


@dataclass(slots=True)
class SlotBook:
    """The slots of one replica. `saved` are the states of its model, which all replicas share."""

    count: int
    saved: SavedStates
    erase_foreign: bool = False
    """A slot is emptied before a request whose prompt has no common beginning with it."""
    slots: list[Slot] = field(default_factory=list)
    leaders: list[Leader] = field(default_factory=list)
    _uses: int = 0

    def __post_init__(self) -> None:
        self.slots = [Slot(number) for number in range(self.count)]

    def idle(self) -> list[Slot]:
        return [slot for slot in self.slots if not slot.busy]

    def find_leader(self, prompt: Prompt) -> Leader | None:
        """The prompt that is being computed and for whose beginning it is worth to wait."""
        best = max((leader for leader in self.leaders), key=lambda each: prompt.common(each.prompt), default=None)
        if best is None:
            return None
        has = max(self.saved.best(prompt)[1], *(prompt.common(slot.prompt) for slot in self.idle()), 0)
        gain = prompt.common(best.prompt) - has
        return best if gain >= MIN_COMMON and 2 * gain >= best.computes else None

    def place(self, prompt: Prompt, now: float) -> Placement | None:
        """Give the request a slot; None: too few are idle."""
        idle = self.idle()
        if len(idle) < prompt.slots:
            return None
        if prompt.slots > 1:
            return self._place_several(prompt, idle)
        near = max(idle, key=lambda slot: (prompt.common(slot.prompt), -slot.number))
        in_slot = prompt.common(near.prompt)
        state, in_state = self.saved.best(prompt)
        if in_slot and in_slot + MIN_COMMON > in_state and near.size - in_slot < MIN_SAVE:
            actions = self._saved_for_others(near, in_slot, in_state, prompt)
            if state is not None and in_state >= MIN_COMMON:
                self.saved.touch(state)  # it is hot, although nobody has to restore it now
            return self._placement(near, prompt, in_slot, actions)
        slot = self._victim(idle, near if in_slot > in_state else None, now)
        common = prompt.common(slot.prompt)
        first = self._saved_first(slot)
        if slot is not near and in_slot >= max(MIN_COMMON, in_state + MIN_COMMON, common + 1):
            # The slot has another conversation: its state is saved, and read into the slot of this request.
            save = self._save(near)
            actions = (save, *first, Action("restore", slot.number, save.state))
            near.busy = True
            return self._placement(slot, prompt, in_slot, actions, held=near.number)
        if state is not None and in_state >= max(MIN_COMMON, common + 1):
            self.saved.begin_use(state)
            actions = (*first, Action("restore", slot.number, state.name))
            return self._placement(slot, prompt, in_state, actions, restored=state)
        if self.erase_foreign and slot.prompt is not None and not common:
            first = (*first, Action("erase", slot.number))
        return self._placement(slot, prompt, common, first)

    def _placement(
        self,
        slot: Slot,
        prompt: Prompt,
        common: int,
        actions: tuple[Action, ...],
        *,
        restored: SavedState | None = None,
        held: int | None = None,
    ) -> Placement:
        leader = None
        if prompt.size - common >= PREFILL:
            leader = Leader(prompt, prompt.size - common, self.saved.has_come(prompt, common + MIN_COMMON))
            self.leaders.append(leader)
        self.saved.note_coming(prompt, MIN_COMMON)
        self._take(slot, prompt)
        return Placement(slot.number, prompt, actions, leader, common, restored, held)

    def resolve(self, leader: Leader) -> bool:
        """The prompt is computed, or could not be; returns whether its state is wanted."""
        if not leader.done:
            leader.done = True
            self.leaders.remove(leader)
        return bool(leader.waiting) or leader.is_known

    def end(self, placement: Placement, now: float, *, complete: bool) -> None:
        """The request of a placement has ended."""
        if placement.leader is not None:
            self.resolve(placement.leader)
        leader = placement.leader
        for slot in (self.slots[number] for number in (placement.slot, *placement.further)):
            slot.busy = False
            if not complete:
                slot.idle_from = now + ABORT_SECONDS
                if leader is None or not leader.computed:
                    slot.prompt = UNKNOWN

    def give_back(self, number: int) -> None:
        self.slots[number].busy = False

    def _place_several(self, prompt: Prompt, idle: list[Slot]) -> Placement:
        """The engine takes the first idle slots for the further choices: the request gets the last one."""
        *others, own = [*idle[: prompt.slots - 1], idle[-1]]
        for slot in (*others, own):
            self._take(slot, UNKNOWN)
        erased = (Action("erase", own.number),) if self.erase_foreign else ()
        return Placement(own.number, UNKNOWN, erased, further=tuple(slot.number for slot in others))

    def _victim(self, idle: list[Slot], kept: Slot | None, now: float) -> Slot:
        """The slot whose prompt is given up: an empty one, else the one whose use is the longest ago."""
        return min(idle, key=lambda slot: (slot is kept, slot.idle_from > now, slot.prompt is not None, slot.used))

    def _saved_first(self, slot: Slot) -> tuple[Action, ...]:
        """The save of a slot's state before the slot gets another prompt, if it is worth it."""
        if slot.prompt is None or not slot.prompt.ends:
            return ()
        known = self.saved.best(slot.prompt)[1]
        return () if slot.prompt.size - known < MIN_SAVE else (self._save(slot),)

    def _saved_for_others(self, slot: Slot, in_slot: int, in_state: int, prompt: Prompt) -> tuple[Action, ...]:
        """The save of a beginning that another conversation, or the same prompt, comes with again."""
        is_next_turn = in_slot == slot.size and in_slot < prompt.size
        if is_next_turn or in_slot < MIN_COMMON or in_slot - in_state < MIN_COMMON:
            return ()
        return (self._save(slot),)

    def _save(self, slot: Slot) -> Action:
        """The save of a slot's state. Until it is done, its prompt is in no slot that is idle and in no state."""
        prompt = slot.prompt or UNKNOWN
        leader = Leader(prompt)
        self.leaders.append(leader)
        return Action("save", slot.number, new_name(), prompt, leader)

    def _take(self, slot: Slot, prompt: Prompt) -> None:
        self._uses += 1
        slot.busy, slot.prompt, slot.used = True, prompt, self._uses


def new_name() -> str:
    """The name of a new state's file."""
    return f"{secrets.token_hex(12)}.state"
