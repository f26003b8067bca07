"""The operations of an agent: long work with its progress, until the server has received its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from xinference.errors import Problem, defect
from xinference.files.progress import cancelled_problem
from xinference.nodes import messages
from xinference.nodes.node import Report, Step

log = logging.getLogger(__name__)

#: Minimum time between two reports of the progress of one operation, in seconds.
PROGRESS_SECONDS = 0.2


class Operations:
    """The operations that run, and the ends that the server has not acknowledged."""

    def __init__(self, send: Callable[[messages.EventBody], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._finished: dict[str, messages.Finished] = {}
        self._has_closed = False

    def begin(self, operation: str, work: Callable[[Report], Awaitable[Path]]) -> None:
        """Begin an operation, unless it has begun already: the answer to an earlier question was lost."""
        if operation in self._running or operation in self._finished:
            return
        report = _OperationReport(operation, self._send, self._clock)
        self._running[operation] = asyncio.create_task(self._run(operation, work, report), name=operation)

    def cancel(self, operation: str) -> None:
        """Cancel an operation, if it runs."""
        if (task := self._running.get(operation)) is not None:
            task.cancel()

    def forget(self, operations: Iterable[str]) -> None:
        """Forget ends that the server has seen."""
        for operation in operations:
            self._finished.pop(operation, None)

    def state(self) -> tuple[tuple[str, ...], tuple[messages.Finished, ...]]:
        """The operations that run, and the ends that the server has not acknowledged."""
        return tuple(self._running), tuple(self._finished.values())

    async def close(self) -> None:
        """Cancel all operations, and wait for their ends. The server learns of the end of this worker by its link."""
        self._has_closed = True
        tasks = tuple(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, operation: str, work: Callable[[Report], Awaitable[Path]], report: Report) -> None:
        problem: Problem | None = None
        path: Path | None = None
        try:
            path = await work(report)
        except asyncio.CancelledError:
            if self._has_closed:
                raise
            problem = cancelled_problem("the operation", action="Running")
        except Problem as error:
            problem = error
        except Exception as error:
            # A defect of xinference must be the answer of the operation, not the end of the agent.
            log.exception("operation %s", operation)
            problem = defect(error)
        finished = messages.Finished(operation, path, None if problem is None else problem.to_dict())
        del self._running[operation]
        self._finished[operation] = finished
        self._send(finished)


@dataclass
class _OperationReport:
    """Sends the progress of one operation, at most five times a second."""

    operation: str
    send: Callable[[messages.EventBody], None]
    clock: Callable[[], float]
    sent: float = float("-inf")

    def begin(self, step: Step, content: str | None) -> None:
        self.send(messages.Began(self.operation, step, content))

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        now = self.clock()
        if done == total or now - self.sent >= PROGRESS_SECONDS:
            self.sent = now
            self.send(messages.Progressed(self.operation, step, file, done, total))
