"""uvicorn's HTTP protocol with two fast paths that bypass the request task, and a limit on the size of heads.

The fast paths are a callback when the client disconnects, and a direct write of chunks: the task of a request costs
more than either.
"""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from xinference.error_codes import Code
from xinference.gateway.auth.peer import PEER_UID, find_peer_uid
from xinference.gateway.http.error_replies import raw_answer
from xinference.protocol.errors import Refusal

#: The scope's entries for `Protocol.watch` and `Protocol.write`.
WATCH = "xinference.watch"
WRITE = "xinference.write"
#: Maximum bytes of a request's head; also of a chunk's size line, and of the trailers.
MAX_HEAD = 64 * 1024
#: How long a refused client may read the answer before the connection is closed. A connection that is closed while
#: the client still sends is reset, and the client loses the answer.
LINGER_SECONDS = 2.0

Watch = Callable[[Callable[[], None] | None], None]


class Protocol(HttpToolsProtocol):
    """One connection of a client."""

    _peer_uid: int | None = None
    _peer_is_known = False
    """Whether the system has been asked for the peer."""
    _on_disconnect: Callable[[], None] | None = None
    _lost = False
    _refused = False
    """The connection ends with a refusal; bytes that still arrive are dropped."""
    _line_bytes = 0
    """Bytes received since the last complete head or the last piece of a body."""
    _has_body = False
    """Whether the bytes that the parser was given last have a piece of a body."""

    def watch(self, on_disconnect: Callable[[], None] | None) -> None:
        """Call `on_disconnect` when the client disconnects, or at once if it has; None ends the watch."""
        self._on_disconnect = on_disconnect
        if on_disconnect is None:
            return
        if self._lost:
            on_disconnect()
        else:
            # A long body may have paused reading, and a disconnect is noticed only by reading.
            self.flow.resume_reading()

    def write(self, body: bytes) -> bool:
        """Send a chunk of an answer that has begun; False: it can't be sent directly, the caller has to use `send`.

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

    def peer_uid(self) -> int | None:
        """The unix user at the other end; None: the system does not tell. It is asked once a connection."""
        if not self._peer_is_known:
            self._peer_is_known = True
            connection = self.transport.get_extra_info("socket")
            self._peer_uid = None if connection is None else find_peer_uid(connection)
        return self._peer_uid

    # -- callbacks of the event loop ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        size = len(data)
        if self._refused or self._line_bytes + size > MAX_HEAD:
            self._receive_in_parts(data)
            return
        cycle, self._has_body = self.cycle, False
        HttpToolsProtocol.data_received(self, data)  # `super()` costs more than the call
        progress = self._has_body or self.cycle is not cycle  # a complete head has made a new cycle
        self._line_bytes = 0 if progress else self._line_bytes + size

    def _receive_in_parts(self, data: bytes) -> None:
        """Give the parser no more than the limit leaves, so that it completes no head that is too long.

        The limit is exact for a head that starts a read. What precedes a head in the same part belongs to another
        request, and the parser doesn't say where that ends, so such a head may have one part more.
        """
        start = 0
        while start < len(data) and not self._refused:
            end = start + MAX_HEAD - self._line_bytes
            if end == start:
                self._refuse(_head_too_large())
            else:
                self.data_received(data[start:end])
            start = end

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self._on_disconnect is not None:
            self._on_disconnect()

    # -- callbacks of the parser ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._line_bytes = 0
        self.scope[WATCH] = self.watch  # type: ignore[literal-required]
        self.scope[WRITE] = self.write  # type: ignore[literal-required]
        self.scope[PEER_UID] = self.peer_uid  # type: ignore[literal-required]

    def on_chunk_header(self) -> None:
        self.headers = []  # trailers are not headers: the scope keeps the list of the head

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        HttpToolsProtocol.on_body(self, body)

    # -- refusals without a request -------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are not HTTP."""
        self._refuse(Refusal(Code.INVALID_HTTP, msg))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer bytes that never become a request, and close the connection."""
        self._refused = True
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # The bytes are those of a further request. The answers to the requests before it come first.
                cycle.keep_alive = False
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()  # a client would take a refusal for a part of an answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(raw_answer(refusal, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _head_too_large() -> Refusal:
    return Refusal(
        Code.HEADERS_TOO_LARGE,
        f"The request line and the headers of a request may have at most {MAX_HEAD} bytes together.",
        hint="Send fewer or shorter headers; long text belongs in the request's body.",
    )
