"""An asynchronous client as if it were a synchronous one, so that one check tells about both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any


class Blocking:
    """Runs each call of `target` to its end on `loop`; what a call returns is wrapped where it has calls of its own."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            async def answer() -> Any:
                result = value(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result

            return self._wrapped(self._loop.run_until_complete(answer()))

        return call

    def _wrapped(self, result: Any) -> Any:
        if hasattr(result, "__aiter__"):
            return self._items(aiter(result))
        return Blocking(result, self._loop) if type(result).__name__.endswith("Handle") else result

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items)

        while True:
            try:
                yield self._loop.run_until_complete(following())
            except StopAsyncIteration:
                return


def handle_type(handle: Any) -> str:
    """The name of a model handle's class, without the ``Async`` before it."""
    target = handle.target if isinstance(handle, Blocking) else handle
    return type(target).__name__.removeprefix("Async")
