"""The questions to nodes that have no answer yet, of any fabric."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from xinference.fabric.fabric import NodeGoneError
from xinference.fabric.frames import Answer, Failure

#: Seconds after which a question fails whose other end does nothing at all; usually that end keeps the time.
MARGIN_SECONDS = 2.0


class Questions:
    """Numbers the questions, and gives each its answer."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[str, asyncio.Future[Answer | Failure]]] = {}

    async def call(self, node: str, send: Callable[[int], None], seconds: float) -> bytes:
        """The answer of a node; `send` sends the question with its number.

        Raises:
            NodeGoneError: the link went down.
            TimeoutError: there was no answer in time.
        """
        answer = await self.ask(node, send, seconds)
        if isinstance(answer, Answer):
            return answer.body
        if answer.reason == "timeout":
            raise TimeoutError
        raise NodeGoneError(node)

    async def ask(self, node: str, send: Callable[[int], None], seconds: float) -> Answer | Failure:
        """The answer as it comes.

        Raises:
            TimeoutError: nothing came, not even a failure.
        """
        number = next(self._numbers)
        future: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()
        self._open[number] = (node, future)
        try:
            send(number)
            return await asyncio.wait_for(future, seconds + MARGIN_SECONDS)
        finally:
            del self._open[number]

    def answer(self, message: Answer | Failure, node: str | None = None) -> None:
        """Give an answer to its question; that of a node only to a question to this node."""
        asked, future = self._open.get(message.number, (None, None))
        if future is not None and not future.done() and node in (None, asked):
            future.set_result(message)

    def end(self, node: str) -> None:
        """Fail the questions to a node whose link went down."""
        for number, (asked, future) in self._open.items():
            if asked == node and not future.done():
                future.set_result(Failure(number, "gone"))
