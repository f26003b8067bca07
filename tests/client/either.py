"""Both clients behind one face, so that a test is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from xinference.client import AsyncClient, Client
from xinference.client.connection import AsyncRunner, Runner, SyncRunner

FLAVOURS = ["sync", "async"]


class Either:
    """A client or handle, and what it takes to get an answer of it. A stream's answer is the list of its items."""

    def __init__(self, runner: Runner, loop: asyncio.Runner | None) -> None:
        self.runner = runner
        self._loop = loop

    def __call__(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        answer = self.wait(getattr(self.runner, method)(*args, **kwargs))
        if isinstance(answer, Generator):
            return list(answer)
        if isinstance(answer, AsyncGenerator):
            return self.wait(_listed(answer))
        return Either(answer, self._loop) if isinstance(answer, Runner) else answer

    def wait(self, answer: Any) -> Any:
        """The answer itself, if it is still to be awaited."""
        return self._loop.run(_awaited(answer)) if self._loop and isinstance(answer, Awaitable) else answer

    def close(self) -> None:
        assert isinstance(self.runner, (SyncRunner, AsyncRunner))
        self.wait(self.runner.close())


def make_either(flavour: str, loop: asyncio.Runner) -> Callable[..., Either]:
    """What makes clients of this flavour."""

    def make(url: str, *args: Any, **kwargs: Any) -> Either:
        if flavour == "async":
            return Either(AsyncClient(url, *args, **kwargs), loop)
        return Either(Client(url, *args, **{"check": False} | kwargs), None)

    return make


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


async def _listed(items: AsyncGenerator[Any, None]) -> list[Any]:
    return [item async for item in items]
