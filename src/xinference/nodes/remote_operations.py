"""The operations that the server runs on a node: each has a name, reports and an end. A cut link does not end them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes import messages
from xinference.nodes.node import Report

#: Maximum time for the end of a cancelled operation, in seconds.
CANCEL_SECONDS = 10.0


@dataclass(eq=False)
class _Operation:
    """An operation on the node whose end is not known."""

    report: Report
    end: asyncio.Future[Path]
    accepted: bool = False


class RemoteOperations:
    """The operations of one node by their names."""

    def __init__(self, prefix: str, tell: Callable[[messages.Tell], None]) -> None:
        """`prefix` begins the name of each operation: no earlier server has used it."""
        self._prefix = prefix
        self._tell = tell
        self._operations: dict[str, _Operation] = {}
        self._numbers = itertools.count(1)

    async def run(self, begin: Callable[[str], Awaitable[object]], report: Report) -> Path:
        """Begin an operation of this name on the node, and wait for its end.

        Raises:
            Problem: that of the node; 503 ``node_gone``.
        """
        name = f"{self._prefix}-{next(self._numbers)}"
        operation = self._operations[name] = _Operation(report, asyncio.get_running_loop().create_future())
        try:
            await begin(name)
            operation.accepted = True
            return await asyncio.shield(operation.end)
        except asyncio.CancelledError:
            self._tell(messages.Cancel(name))
            # The node's thread reads the cancellation. Wait for its end, as for a thread of this machine.
            await asyncio.wait({operation.end}, timeout=CANCEL_SECONDS)
            raise
        finally:
            del self._operations[name]
            if not operation.end.cancel() and not operation.end.cancelled():
                operation.end.exception()  # nobody else may read it

    def receive(self, event: messages.Began | messages.Progressed | messages.Finished) -> None:
        """Take an event of an operation; those of an operation that is not waited for are ignored."""
        operation = self._operations.get(event.operation)
        match event:
            case messages.Began() if operation is not None:
                operation.report.begin(event.step, event.content)
            case messages.Progressed() if operation is not None:
                operation.report.progress(event.step, event.file, event.done, event.total)
            case messages.Finished():
                self._tell(messages.Forget(operations=(event.operation,)))
                if operation is not None:
                    _finish(operation, event)

    def take_state(self, state: messages.WholeState) -> None:
        """Compare the operations with those that the node has after a new connection."""
        for name in set(state.running) - self._operations.keys():  # its cancellation was lost
            self._tell(messages.Cancel(name))
        for finished in state.finished:
            self.receive(finished)
        for name, operation in self._operations.items():
            if operation.accepted and name not in state.running:
                cause = "The worker was started again during the operation."
                _fail(operation, Problem(Code.NODE_GONE, cause, hint="Launch the model again."))

    def fail_all(self, problem: Problem) -> None:
        """End all operations: the node is lost."""
        for operation in self._operations.values():
            _fail(operation, problem)


def _finish(operation: _Operation, finished: messages.Finished) -> None:
    if finished.problem is not None:
        _fail(operation, Problem.from_dict(finished.problem))
    elif finished.path is not None and not operation.end.done():
        operation.end.set_result(finished.path)


def _fail(operation: _Operation, problem: Problem) -> None:
    if not operation.end.done():
        operation.end.set_exception(problem)
