"""The end of a worker with its engines: the supervisor is told first, and no engine is left at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from xinference.nodes.agent import Agent
from xinference.process.engine_stop import finish_stop

log = logging.getLogger(__name__)
#: Maximum time for the answer of the supervisor, in seconds: one of an earlier release does not answer.
LEAVE_SECONDS = 2.0
#: Interval at which the link is looked at meanwhile, in seconds.
LINK_SECONDS = 0.2


class Departure:
    """The end of one worker.

    Args:
        agent: of this machine.
        move_seconds: maximum time in which the replicas are started on other machines first.
        is_linked: whether the link to the supervisor is up.
        end_link: closes the link permanently: nothing can be started over it.
        run_dir: the folder of the keepers' sockets.
    """

    def __init__(
        self,
        agent: Agent,
        is_linked: Callable[[], bool],
        end_link: Callable[[], None],
        run_dir: Path,
        move_seconds: float = 0.0,
    ) -> None:
        self._agent = agent
        self._move_seconds = move_seconds
        self._is_linked = is_linked
        self._end_link = end_link
        self._run_dir = run_dir
        self._hurried = asyncio.Event()
        self.has_begun = False
        """Whether the supervisor was told: the engines are stopped, whatever signal follows."""

    def hurry(self) -> None:
        """End the engines at once, and wait for nothing."""
        self._hurried.set()

    async def begin(self, *, moves: bool = False) -> None:
        """Tell the supervisor once, and wait until it starts nothing here any more.

        If it does not answer, the link is closed: the node is out of reach then, and nothing is started there.

        `moves`: the engines answer until their replicas are ready on other machines, at most for `move_seconds`.
        """
        if self.has_begun:
            return
        self.has_begun = True
        if moves and self._move_seconds:
            await self._wait_for_moves()
        if not self._agent.may_leave.is_set():
            self._agent.leave(waits=False)
        if not await self._is_first(self._agent.may_leave, LEAVE_SECONDS):
            log.warning("the supervisor has not confirmed that this worker ends: the link to it is closed")
            self._end_link()

    async def _wait_for_moves(self) -> None:
        self._agent.leave(waits=True)
        if not await self._is_first(self._agent.leave_noted, LEAVE_SECONDS):
            return
        if self._agent.may_leave.is_set():
            return
        log.info("its replicas are started on other machines first, at most for %g s", self._move_seconds)
        if not await self._is_first(self._agent.may_leave, self._move_seconds):
            log.warning("not all of its replicas are ready on other machines: its engines are stopped now")

    async def end_engines(self) -> None:
        """Stop all engines, and kill what is left of them."""
        await self.begin()
        await finish_stop(self._agent.stop_engines(), self._hurried, self._run_dir)

    async def _is_first(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event that comes over the link, at most `seconds`, and until the end is hurried.

        Returns whether the event is set.
        """
        waits = [asyncio.create_task(each.wait()) for each in (event, self._hurried)]
        end = time.monotonic() + seconds
        while self._is_linked() and not any(each.is_set() for each in (event, self._hurried)):
            left = end - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait(waits, timeout=min(left, LINK_SECONDS), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return event.is_set()
