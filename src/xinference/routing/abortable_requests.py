"""Running requests that can be aborted, by the id that their client chose."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import TracebackType
from typing import Protocol


class Abortables(Protocol):
    """Aborts requests by id, in one process or in several."""

    async def abort_all(self, model: str, request_id: str) -> bool:
        """Abort the requests of this id in all processes; returns whether there was one."""
        ...


class AbortableRequests:
    """Running requests by model and id. It is used from one event loop only, so it needs no lock."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], set[Abortable]] = defaultdict(set)

    def abortable(self, model: str, request_id: str) -> Abortable:
        """A context whose task can be aborted by this id; several requests may have the same id."""
        return Abortable(self._requests, (model, request_id))

    def abort(self, model: str, request_id: str) -> bool:
        """Abort the requests of this id; returns whether there was one."""
        requests = self._requests.get((model, request_id), set())
        for request in tuple(requests):
            request.abort()
        return bool(requests)

    async def abort_all(self, model: str, request_id: str) -> bool:
        """The same as `abort`: there is only this process."""
        return self.abort(model, request_id)


class Abortable:
    """A context whose task `abort` cancels; the context then exits without an exception, with `aborted` set."""

    __slots__ = ("_key", "_requests", "_task", "aborted")

    def __init__(self, requests: dict[tuple[str, str], set[Abortable]], key: tuple[str, str]) -> None:
        self._requests = requests
        self._key = key
        self.aborted = False

    def abort(self) -> None:
        """Cancel the task in the context."""
        if not self.aborted:
            self.aborted = True
            self._task.cancel()

    async def __aenter__(self) -> Abortable:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._requests[self._key].add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        requests = self._requests[self._key]
        requests.discard(self)
        if not requests:
            del self._requests[self._key]
        if not self.aborted:
            return False
        still_cancelled = self._task.uncancel() > 0
        return kind is asyncio.CancelledError and not still_cancelled
