"""The time limit of a client that does not read its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from xinference.gateway.http.connection_limits import LATE_SECONDS, MIN_SPEED
from xinference.gateway.http.scope_entries import CONTENDED, READ_PAUSE

log = logging.getLogger(__name__)

#: Maximum time in which a client reads nothing of its answer while other requests wait for the place that it occupies.
CONTENDED_SECONDS = 5.0


class ReaderWatch:
    """Closes the connection of a client that reads too little, from the moment at which its answer has to wait.

    It exists while the client reads more slowly than the answer is written.
    """

    __slots__ = ("_cycle", "_loop", "_timer", "_timer_at", "_transport", "_unsent", "_unsent_since", "_write_seconds")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        cycle: Callable[[], RequestResponseCycle | None],
        write_seconds: float,
    ) -> None:
        """Start the watch.

        Args:
            transport: that of the connection; it is aborted.
            loop: its event loop.
            cycle: returns the connection's newest request; None: none has come.
            write_seconds: maximum seconds in which a client reads nothing of its answer.
        """
        self._transport, self._loop, self._cycle, self._write_seconds = transport, loop, cycle, write_seconds
        self._unsent = transport.get_write_buffer_size()
        """Bytes of the answer that had not been sent at `_unsent_since`."""
        self._unsent_since = loop.time()
        self._check_in(CONTENDED_SECONDS)

    def end(self) -> None:
        """End the watch. Its timer would keep the connection in memory."""
        self._timer.cancel()

    def _check_in(self, seconds: float) -> None:
        seconds = min(seconds, self._write_seconds)
        self._timer_at = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._check)

    def _check(self) -> None:
        """Close the connection if the client has read too little since the last check."""
        now, unsent = self._loop.time(), self._transport.get_write_buffer_size()
        if now - self._timer_at > LATE_SECONDS:
            self._check_in(1.0)
            return
        elapsed = now - self._unsent_since
        if self._unsent - unsent >= MIN_SPEED * elapsed:
            self._unsent, self._unsent_since = unsent, now
            self._check_in(CONTENDED_SECONDS)
            return
        seconds = self._pause()
        if self._is_contended():
            seconds = min(seconds, CONTENDED_SECONDS)
        if elapsed < seconds:
            self._check_in(min(seconds - elapsed, CONTENDED_SECONDS))
            return
        log.info("a client has read nothing of its answer for %g s: its connection is closed", elapsed)
        self._transport.abort()

    def _pause(self) -> float:
        """Maximum seconds in which the client reads nothing."""
        cycle = self._cycle()
        pause = cast(float | None, cycle and cycle.scope.get(READ_PAUSE))
        return self._write_seconds if cycle is None or pause is None or cycle.response_complete else pause

    def _is_contended(self) -> bool:
        cycle = self._cycle()
        contended = cast(Callable[[], bool] | None, cycle and cycle.scope.get(CONTENDED))
        return contended is not None and contended()
