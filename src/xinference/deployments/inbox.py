"""The inbox of the owner of a deployment, and its helper tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from xinference.deployments.messages import Defect, Message
from xinference.errors import Problem
from xinference.task_set import TaskSet


class Inbox:
    """Queues the messages to the owner, and runs its helper tasks.

    A helper only puts messages. If a helper raises an exception, the inbox puts a `Defect`.
    """

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._helpers = TaskSet()

    def put(self, message: Message) -> None:
        self._messages.put_nowait(message)

    async def get(self) -> Message:
        """Wait for the next message and return it."""
        return await self._messages.get()

    def take_all(self) -> list[Message]:
        """Remove and return all queued messages, without waiting."""
        return [self._messages.get_nowait() for _ in range(self._messages.qsize())]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a helper task."""
        self._helpers.start(self._run(work))

    async def end_helpers(self) -> None:
        """Cancel the helper tasks, and wait until they have ended."""
        await self._helpers.end()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- the owner logs it and fails
            self.put(Defect(error))


def resolve(reply: asyncio.Future[Any], result: object) -> None:
    """Resolve a reply with a result, or with an exception if the result is a `Problem`.

    A reply that the requester has cancelled stays unchanged.
    """
    if reply.done():
        return
    if isinstance(result, Problem):
        reply.set_exception(result)
    else:
        reply.set_result(result)
