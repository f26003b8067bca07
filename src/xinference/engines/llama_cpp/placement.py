"""Places the requests of one replica of llama.cpp: chooses slots, saves and restores states, and lets equal ones wait.

A wrong choice costs time only: the engine compares the tokens of each request with those in its slot.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time

from xinference.engines.llama_cpp.model_states import LlamaCppStates
from xinference.engines.llama_cpp.prompt_beginnings import Prompt, prefill_body, read_prompt, with_slot
from xinference.engines.llama_cpp.slot_book import Action, Leader, Placement, SlotBook, new_name
from xinference.engines.llama_cpp.slot_turns import SlotTurns
from xinference.engines.request_placement import NORMAL, AskEngine

log = logging.getLogger(__name__)

#: Maximum time for an action about a slot. It takes milliseconds, but the engine first completes the batch that it
#: computes, which takes minutes on a busy machine. A request without the action would wait for the same batch.
ACTION_SECONDS = 600.0
#: Number of actions that may fail in a row; then the replica's states are not used any more.
MAX_FAILURES = 3


class PlacedRequest:
    """A request with its slot."""

    __slots__ = ("_owner", "_placement", "body")

    def __init__(self, owner: SlotPlacement, placement: Placement, body: bytes) -> None:
        self._owner, self._placement = owner, placement
        self.body = body

    def end(self, *, complete: bool) -> None:
        self._owner.end(self._placement, complete=complete)


class SlotPlacement:
    """The placement of one replica's requests."""

    def __init__(self, states: LlamaCppStates, slots: int) -> None:
        self._states = states
        self._book = SlotBook(slots, states.saved, erase_foreign=states.limits.by_client)
        self._waiting = SlotTurns()
        self._computed: dict[int, asyncio.Event] = {}
        self._failures = 0

    async def place(
        self, path: str, body: bytes, client: str, ask: AskEngine, priority: int = NORMAL
    ) -> PlacedRequest | None:
        """See `RequestPlacement.place`."""
        if self._failures >= MAX_FAILURES:
            return None
        prompt = read_prompt(path, body, client.encode() if self._states.limits.by_client else b"")
        if prompt is None or prompt.slots > self._book.count:
            return None
        if self._book.leaders:
            await self._wait_for_equal(prompt)
        placement = None if self._waiting else self._book.place(prompt, time.monotonic())
        if placement is None:
            placement = await self._wait_for_slot(prompt, priority)
        try:
            await self._prepare(placement, path, body, ask)
        except BaseException:
            self.end(placement, complete=False)
            raise
        return PlacedRequest(self, placement, with_slot(body, placement.slot))

    def end(self, placement: Placement, *, complete: bool) -> None:
        """The request of a placement has ended."""
        self._book.end(placement, time.monotonic(), complete=complete)
        if placement.leader is not None:
            self._wake(placement.leader)
        self._give_slots()

    async def _wait_for_equal(self, prompt: Prompt) -> None:
        """Wait while another request computes a beginning of this prompt."""
        until = time.monotonic() + self._states.limits.wait_seconds
        while (leader := self._book.find_leader(prompt)) is not None:
            computed = self._computed.setdefault(id(leader), asyncio.Event())
            leader.waiting += 1
            self._states.counts.waited += 1
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await computed.wait()
            except TimeoutError:
                return
            finally:
                leader.waiting -= 1
            if leader.computed and not leader.saved:
                return

    async def _wait_for_slot(self, prompt: Prompt, priority: int) -> Placement:
        """Wait for the turn of this request, and for as many idle slots as it needs."""
        first = False
        while True:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if first:
                self._waiting.add_first(turn, priority)
            else:
                self._waiting.add(turn, priority)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_slots()
                else:
                    self._waiting.remove(turn)
                raise
            placement = self._book.place(prompt, time.monotonic())
            if placement is not None:
                self._give_slots()
                return placement
            first = True

    def _give_slots(self) -> None:
        """Let the oldest request that waits look for a slot."""
        while self._waiting and self._book.idle():
            turn = self._waiting.take()
            if not turn.done():
                turn.set_result(None)
                return

    def _wake(self, leader: Leader) -> None:
        computed = self._computed.pop(id(leader), None)
        if computed is not None:
            computed.set()

    async def _prepare(self, placement: Placement, path: str, body: bytes, ask: AskEngine) -> None:
        try:
            await self._act(placement.actions, ask)
        finally:
            for action in placement.actions:
                self._end_save(action)
            if placement.restored is not None:
                self._states.saved.end_use(placement.restored)
            if placement.held is not None:
                self._book.give_back(placement.held)
                self._give_slots()
        if placement.common and not placement.actions:
            self._states.counts.direct += 1
        if placement.leader is not None:
            await self._compute(placement, placement.leader, path, body, ask)
        self._states.keep_hot()

    async def _compute(self, placement: Placement, leader: Leader, path: str, body: bytes, ask: AskEngine) -> None:
        """Compute the prompt, and save its state if others wait for it or have had a part of it."""
        status, _ = await ask(path, b"", prefill_body(body, placement.slot))
        leader.computed = status == 200
        wanted = self._book.resolve(leader)
        if leader.computed and wanted:
            action = Action("save", placement.slot, new_name(), leader.prompt)
            leader.saved = await self._save(action, ask)
        self._wake(leader)

    async def _act(self, actions: tuple[Action, ...], ask: AskEngine) -> None:
        for action in actions:
            if action.what == "save":
                saved = await self._save(action, ask)
                self._end_save(action, saved=saved)
            elif action.what == "restore":
                await self._restore(action, ask)
            else:
                await self._slot_action(action, ask)

    def _end_save(self, action: Action, *, saved: bool = False) -> None:
        """Let the requests go on that wait for a save; again without effect."""
        leader = action.leader
        if leader is not None and not leader.done:
            leader.computed, leader.saved = True, saved
            self._book.resolve(leader)
            self._wake(leader)

    async def _save(self, action: Action, ask: AskEngine) -> bool:
        states = self._states
        if not states.make_room(states.saved.expected_bytes(action.prompt.size)):
            return False
        answer = await self._slot_action(action, ask)
        written = answer.get("n_written") if answer else None
        return isinstance(written, int) and states.add(action.state, action.prompt, written)

    async def _restore(self, action: Action, ask: AskEngine) -> None:
        if not await self._states.make_readable(action.state):
            return
        answer = await self._slot_action(action, ask)
        if answer is None:
            self._states.spoil(action.state)
        else:
            self._states.counts.restored += 1

    async def _slot_action(self, action: Action, ask: AskEngine) -> dict[str, object] | None:
        """The answer to an action; None: it failed. The request that follows is right all the same."""
        body = json.dumps({"filename": action.state}).encode() if action.state else b"{}"
        try:
            async with asyncio.timeout(ACTION_SECONDS):
                status, answer = await ask(f"/slots/{action.slot}", b"action=" + action.what.encode(), body)
        except TimeoutError:
            status, answer = 0, b"no answer"
        if status == 200:
            self._failures = 0
            decoded: dict[str, object] = json.loads(answer)
            return decoded
        self._failures += 1
        log.warning("llama.cpp could not %s the state of slot %d: %r", action.what, action.slot, answer[:200])
        if self._failures == MAX_FAILURES:
            log.warning("the beginnings of prompts are not shared any more at this replica")
        return None
