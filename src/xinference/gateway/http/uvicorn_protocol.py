"""uvicorn's HTTP protocol, with two ways past the task of a request, which costs more than what it does here.

A client that leaves is told of at once, and a chunk can be written from the callback that brought it.
"""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The scope's entries for `Protocol.watch` and `Protocol.write`.
WATCH = "xinference.watch"
WRITE = "xinference.write"

Watch = Callable[[Callable[[], None] | None], None]


class Protocol(HttpToolsProtocol):
    """One connection of a client."""

    _on_left: Callable[[], None] | None = None
    _lost = False

    def watch(self, on_left: Callable[[], None] | None) -> None:
        """Call `on_left` when the client leaves, or at once if it has; None: nobody wants to know any more."""
        self._on_left = on_left
        if on_left is None:
            return
        if self._lost:
            on_left()
        else:
            # A long body may have stopped the reading, and who does not read does not see the end.
            self.flow.resume_reading()

    def write(self, body: bytes) -> bool:
        """Send a chunk of an answer that has begun; False: not now, or not so, and `send` has to do it.

        An empty chunk only asks whether one could be sent.
        """
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding or cycle.response_complete:
            return False
        if self.pipeline:  # then the cycle is that of a later request
            return False
        if body:
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[WATCH] = self.watch  # type: ignore[literal-required]
        self.scope[WRITE] = self.write  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self._on_left is not None:
            self._on_left()
