"""The end of a worker with its engines: the supervisor is told first, and no engine is left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from xinference.nodes.agent import Agent
from xinference.process.leftovers import end_keepers

log = logging.getLogger(__name__)
#: Maximum time for the answer of the supervisor, in seconds: one of an earlier release does not answer.
LEAVE_SECONDS = 2.0
#: Maximum time in which the keepers of stopped engines end by themselves, in seconds.
KEEPER_SECONDS = 2.0


class Departure:
    """The end of one worker.

    Args:
        agent: of this machine.
        is_linked: whether the link to the supervisor is up.
        end_link: closes the link permanently: nothing can be started over it.
        run_dir: the folder of the keepers' sockets.
    """

    def __init__(
        self, agent: Agent, is_linked: Callable[[], bool], end_link: Callable[[], None], run_dir: Path
    ) -> None:
        self._agent = agent
        self._is_linked = is_linked
        self._end_link = end_link
        self._run_dir = run_dir
        self._hurried = asyncio.Event()
        self.has_begun = False
        """Whether the supervisor was told: the engines are stopped, whatever signal follows."""

    def hurry(self) -> None:
        """End the engines at once, and wait for nothing."""
        self._hurried.set()

    async def begin(self) -> None:
        """Tell the supervisor once, and wait until it starts nothing here any more.

        If it does not answer, the link is closed: the node is out of reach then, and nothing is started there.
        """
        if self.has_begun:
            return
        self.has_begun = True
        self._agent.leave()
        is_told = self._is_linked() and await self._is_first(self._agent.may_leave, LEAVE_SECONDS)
        if not is_told:
            log.warning("the supervisor has not confirmed that this worker ends: the link to it is closed")
            self._end_link()

    async def end_engines(self) -> None:
        """Stop all engines, and kill what is left of them."""
        await self.begin()
        stopping = asyncio.create_task(self._agent.stop_engines())
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        left = await asyncio.to_thread(end_keepers, self._run_dir, 0.0 if self._hurried.is_set() else KEEPER_SECONDS)
        if left:
            log.warning("killed the engines that had not ended: %s", ", ".join(left))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping, KEEPER_SECONDS)

    async def _is_first(self, event: asyncio.Event, seconds: float) -> bool:
        """Wait for an event, at most `seconds`, or until the end is hurried; returns whether the event is set."""
        waits = [asyncio.create_task(each.wait()) for each in (event, self._hurried)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return event.is_set()
