"""Threads for work that can take long: hubs, downloads, builds, and files that a user names.

asyncio's own pool is left to the control of models: starts and restarts of engines, and the management API. All threads
here are daemon threads, so work that hangs does not keep the process from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.progress import cancelled_problem

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: Default of the time for all questions to hubs of one request, in seconds.
QUESTION_SECONDS = 60.0
#: Interval in which work that waits for a thread looks whether it is cancelled.
CANCEL_POLL_SECONDS = 0.1


def start_thread(
    name: str, work: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Future[Result]:
    """Run `work` in a daemon thread of its own."""
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()
    call = partial(work, *arguments, **named)
    threading.Thread(target=_run, args=(future, call), name=name, daemon=True).start()
    return future


def _run(future: Future[Result], work: Callable[[], Result]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 -- the reader of the future gets it
        future.set_exception(error)
    else:
        future.set_result(result)


class DaemonExecutor(Executor):
    """At most `limit` daemon threads for one piece of work with many parts. It is not waited for at the end."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._parts: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._threads = 0
        self._lock = threading.Lock()

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        future: Future[Result] = Future()
        self._parts.put((future, partial(fn, *args, **kwargs)))
        with self._lock:
            is_new = self._threads < self._limit
            self._threads += is_new
        if is_new:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel the parts that have not begun; the others end on their own."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._parts.get_nowait()[0].cancel()

    def _work(self) -> None:
        while True:
            with self._lock:
                try:
                    future, part = self._parts.get_nowait()
                except queue.Empty:
                    self._threads -= 1
                    return
            if future.set_running_or_notify_cancel():
                _run(future, part)


class WorkThreads:
    """A limited number of threads for blocking work of one kind; further work waits in a queue."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a thread."""
        return len(self._waiting)

    async def run(
        self, work: Callable[..., Result], *arguments: Any, cancelled: threading.Event | None = None
    ) -> Result:
        """Run `work` in a thread. A cancelled call returns at once; its thread is counted until it ends.

        Args:
            cancelled: ends the wait for a thread; `work` has to look at it itself.

        Raises:
            Problem: 499 ``cancelled``.
        """
        await self._take_place(cancelled)
        loop = asyncio.get_running_loop()
        try:
            future = start_thread(self._name, work, *arguments)
        except BaseException:
            self._give_place()
            raise
        future.add_done_callback(lambda _: _tell(loop, self._give_place))
        return await asyncio.wrap_future(future)

    async def _take_place(self, cancelled: threading.Event | None) -> None:
        if self._running < self._limit:
            self._running += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            while not place.done():
                if cancelled is not None and cancelled.is_set():
                    raise cancelled_problem(self._name)
                await asyncio.wait({place}, timeout=None if cancelled is None else CANCEL_POLL_SECONDS)
        except BaseException:
            if place.done():
                self._give_place()
            else:
                self._waiting.remove(place)
            raise

    def _give_place(self) -> None:
        """Give the place of work that has ended to the call that has waited longest."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._running -= 1


class HubQuestions:
    """Questions to hubs: few at a time, a short queue, and an overall deadline for those of one request.

    A hub can answer a byte at a time for ever, and a thread can't be ended. A question past its deadline gives its
    place to the next one. The threads that are left behind are counted: beyond `left`, further questions time out.
    """

    def __init__(self, seconds: float = QUESTION_SECONDS, *, limit: int = 8, queue: int = 64, left: int = 64) -> None:
        self._seconds = seconds
        self._threads = WorkThreads("hub question", limit + left)
        self._places = asyncio.Semaphore(limit)
        self._asked = 0
        self._limit = limit
        self._queue = queue

    async def ask(
        self, question: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """The answer to `question`, a blocking call.

        Raises:
            Problem: 504 ``hub_timeout``; 503 ``hub_busy``.
        """
        if self._asked >= self._limit + self._queue:
            raise Problem(
                Code.HUB_BUSY,
                f"{self._asked} requests wait for hubs already.",
                hint="Ask again in a moment, or give a path with --model-path.",
            )
        self._asked += 1
        try:
            async with asyncio.timeout(self._seconds) as deadline, self._places:
                return await self._threads.run(partial(question, *arguments, **named))
        except TimeoutError:
            if not deadline.expired():
                raise
            raise Problem(
                Code.HUB_TIMEOUT,
                f"The hub did not answer within {self._seconds:g} s.",
                hint="Try again, choose another hub with --download_hub, or raise XINFERENCE_HUB_SECONDS.",
            ) from None
        finally:
            self._asked -= 1


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waits
        loop.call_soon_threadsafe(call)


class LongWork:
    """The threads of each kind of long work of one server."""

    def __init__(self, question_seconds: float = QUESTION_SECONDS) -> None:
        self.questions = HubQuestions(question_seconds)
        """Questions of users for a model on a hub."""
        self.choices = HubQuestions(question_seconds, queue=10_000)
        """Choices between hubs, of which a server that starts makes one for each stored deployment at the same time."""
        self.transfers = WorkThreads("transfer", 32)
        """Downloads."""
        self.builds = WorkThreads("build", 4)
        """Conversions, and installations of environments."""
        self.files = WorkThreads("files", 8)
        """Reading and deleting weights, and looking through caches: a user's path may be on a disk that hangs."""
