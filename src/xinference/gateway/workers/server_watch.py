"""Watches the server from a gateway process: no request waits for a server that is suspended or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

T = TypeVar("T")
#: Interval of the checks, in seconds.
CHECK_SECONDS = 1.0
#: Number of checks in a row without a message from the server after which it hangs; it sends one every 5 s.
SILENT_CHECKS = 20


class ServerWatch:
    """Counts the checks since the last message of the server.

    It counts checks and not seconds: a gateway process that was suspended itself has messages to read first.
    """

    def __init__(self) -> None:
        self._silent = 0

    @property
    def hangs(self) -> bool:
        """Whether the server has sent nothing for too long."""
        return self._silent >= SILENT_CHECKS

    def heard(self) -> None:
        """Note a message of the server."""
        self._silent = 0

    async def run(self, on_hang: Callable[[], None]) -> None:
        """Check until the task is cancelled; call `on_hang` at each check at which the server hangs."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self._silent += 1
            if self.hangs:
                on_hang()

    async def answer_of(self, question: Awaitable[T]) -> T:
        """The server's answer.

        Raises:
            Refusal: 503, the server hangs.
        """
        task = asyncio.ensure_future(question)
        try:
            while not (await asyncio.wait((task,), timeout=CHECK_SECONDS))[0]:
                if self.hangs:
                    raise server_hangs()
            return task.result()
        finally:
            task.cancel()


def server_hangs() -> Refusal:
    """The refusal of a request that needs the server."""
    return Refusal(
        Code.SERVER_UNREACHABLE,
        f"The server process has not answered for {SILENT_CHECKS * CHECK_SECONDS:g} s.",
        hint="If it stays so, end it and start it again; the engines keep running.",
        retry_after=5,
    )
