"""The two results of a replica that others wait for: that it answers requests, and its exit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.process.command import Exit


class ReplicaResults:
    """Set once by the owner of a replica, and awaited by any number of others, or by none."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[Exit] = loop.create_future()
        for result in (self._ready, self._exited):
            result.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may never be awaited

    @property
    def is_started(self) -> bool:
        """Whether the replica was ready once, or can't become ready any more."""
        return self._ready.done()

    @property
    def is_over(self) -> bool:
        """Whether the replica has exited, or belongs to another server."""
        return self._exited.done()

    async def wait_ready(self, stop: Callable[[], Awaitable[object]]) -> None:
        """Wait until the replica is ready. Cancellation before that calls `stop`.

        Raises:
            Problem: that of `fail`, `end` or `detach`.
        """
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            if not self._ready.done():
                await stop()
            raise

    async def wait_exited(self) -> Exit:
        """Wait for the exit.

        Raises:
            Problem: 503 ``engine_detached``.
        """
        return await asyncio.shield(self._exited)

    async def wait_stopped(self) -> Exit | None:
        """Wait for the exit; None: the replica was detached before."""
        try:
            return await self.wait_exited()
        except Problem:
            return None

    def set_ready(self) -> None:
        """The replica answers requests."""
        if not self._ready.done():
            self._ready.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The replica can't become ready, unless it is already."""
        if not self._ready.done():
            self._ready.set_exception(error)

    def set_exited(self, exit: Exit) -> None:
        """The replica has exited."""
        self._exited.set_result(exit)

    def end(self, exit: Exit, problem: Problem) -> None:
        """The replica has exited; `problem` is that of the start, if it was not ready before."""
        self.set_exited(exit)
        self.fail(problem)

    def detach(self, problem: Problem | None = None) -> None:
        """The replica, unless it has ended, belongs to another server."""
        detached = problem or Problem(Code.ENGINE_DETACHED, "Another server owns the engine now.")
        self.fail(detached)
        if not self._exited.done():
            self._exited.set_exception(detached)
