"""The notice that the server begins to stop, which ends the requests and streams that wait for something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from xinference.errors import server_stopping

Result = TypeVar("Result")


class StopNotice:
    """Given once, before the server stops accepting requests."""

    def __init__(self) -> None:
        self._given = asyncio.Event()
        self._subscribers: list[Callable[[], None]] = []
        self._sleeping: set[asyncio.Future[None]] = set()

    @property
    def given(self) -> bool:
        """Whether the server stops."""
        return self._given.is_set()

    def subscribe(self, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` when the stop begins."""
        self._subscribers.append(subscriber)

    def give(self) -> None:
        """Begin the stop."""
        self._given.set()
        for sleeping in self._sleeping:
            _end(sleeping)
        for subscriber in self._subscribers:
            subscriber()

    async def unless_given(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which is cancelled when the notice is given.

        Raises:
            Problem: 503 ``server_stopping``.
        """
        if self._given.is_set():
            work.close()
            raise server_stopping()
        working, notice = asyncio.ensure_future(work), asyncio.ensure_future(self._given.wait())
        working.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait({working, notice}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise server_stopping()
        finally:
            notice.cancel()
            working.cancel()

    async def sleep(self, seconds: float) -> bool:
        """Sleep until the notice is given, at most `seconds`; returns whether it is."""
        if self._given.is_set():
            return True
        loop = asyncio.get_running_loop()  # `wait_for` would make a task for each sleep
        sleeping = loop.create_future()
        timer = loop.call_later(seconds, _end, sleeping)
        self._sleeping.add(sleeping)
        try:
            await sleeping
        finally:
            timer.cancel()
            self._sleeping.discard(sleeping)
        return self._given.is_set()


def _end(sleeping: asyncio.Future[None]) -> None:
    if not sleeping.done():
        sleeping.set_result(None)
