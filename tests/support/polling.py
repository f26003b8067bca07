"""Wait for a condition: look, sleep, and look again until it holds or the time is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: str, look: Callable[[], T], seconds: float = 120.0) -> T:
    """Call `look` until its result is truthy, and return that result; fail with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        result = look()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


async def until_async(what: str, look: Callable[[], object | Awaitable[object]], seconds: float = 20.0) -> None:
    """Call `look`, a function or a coroutine function, until its result is truthy; fail with `what` after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        result = look()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
