"""uvicorn's HTTP protocol, which tells at once that a client has left: a task that waits for it costs each request."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: The scope's entry for `Protocol.watch`.
WATCH = "xinference.watch"

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

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[WATCH] = self.watch  # type: ignore[literal-required]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self._on_left is not None:
            self._on_left()
