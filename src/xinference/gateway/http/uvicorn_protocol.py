"""uvicorn's HTTP protocol with two fast paths that bypass the request task, and with limits of size and time.

The fast paths are a callback when the client disconnects, and a direct write of chunks: the task of a request costs
more than either. The limits cost nothing for a request that arrives in one piece and an answer that is read.

Some callbacks of the parser replace uvicorn's for usual requests, with the same result and fewer steps.
`tests/gateway/http/test_uvicorn_internals.py` compares both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from xinference.error_codes import Code
from xinference.gateway.auth.peer import PEER_UID, find_peer_uid
from xinference.gateway.http.asgi import Send
from xinference.gateway.http.connection_limits import LATE_SECONDS, MIN_SPEED, ConnectionLimits, Connections
from xinference.gateway.http.connection_refusals import (
    body_too_slow,
    head_too_large,
    head_too_slow,
    too_many_connections,
    too_many_headers,
)
from xinference.gateway.http.error_replies import raw_answer
from xinference.gateway.http.http_1_0 import end_by_closing
from xinference.gateway.http.reader_watch import ReaderWatch
from xinference.gateway.http.scope_entries import TAKE_BODY, WATCH, WRITE, WRITE_WHOLE
from xinference.gateway.http.usual_heads import KNOWN_NAMES, plain_path, without_upgrade
from xinference.protocol.errors import Header, Refusal

#: Maximum bytes of a request's head; also of a chunk's size line, and of the trailers.
MAX_HEAD = 64 * 1024
#: Maximum number of headers of a request.
MAX_HEADERS = 100
#: How long a refused client may read the answer before the connection is closed. A connection that is closed while
#: the client still sends is reset, and the client loses the answer.
LINGER_SECONDS = 2.0
#: The largest share of a wait that is added to it. Thousands of connections of one moment would end in one moment, in
#: which nobody else is answered.
MAX_SPREAD = 0.05
#: Maximum bytes that are read and dropped meanwhile: to drop them takes time from other clients.
MAX_DROPPED = 1024 * 1024
#: The same for the rest of a body whose request has been answered: many clients read no answer before they have sent
#: the whole body, and then send the next request.
MAX_REST = 128 * 1024 * 1024

#: Where the name of such a header is searched, in bytes of a request.
UPGRADE_WITHIN = 4096

#: The content types of most whole answers.
USUAL_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})

#: The end of the first line of most requests, up to its last byte.
_HTTP_1_1 = b" HTTP/1.1\r"


class Phase(Enum):
    """What has arrived of the request that is being received."""

    NONE = "no byte"
    HEAD = "a part of the head"
    BODY = "the head"


# Globals: they are compared for each piece of a request.
NONE, HEAD, BODY = Phase


class Protocol(HttpToolsProtocol):
    """One connection of a client."""

    # uvicorn's attributes fill the compact form that an object's dict has up to 30 names: these would not fit into it.
    __slots__ = (
        "_answered",
        "_began",
        "_connections",
        "_dropped",
        "_has_body",
        "_is_http_1_1",
        "_last_piece",
        "_limits",
        "_line_bytes",
        "_lost",
        "_on_disconnect",
        "_peer_is_known",
        "_peer_uid",
        "_phase",
        "_reader_watch",
        "_received",
        "_refusal",
        "_refused",
        "_request_timer",
        "_request_timer_at",
        "_spread",
        "_waits",
        "_was_paused",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections | None = None,
    ) -> None:
        """`connections`: all connections of the server; None: this is the only one."""
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections or Connections(ConnectionLimits())
        self._limits = self._connections.limits
        self._peer_uid: int | None = None
        self._peer_is_known = False
        """Whether the system has been asked for the peer."""
        self._answered: RequestResponseCycle | None = None
        """The request that is being answered while others are in the pipeline; uvicorn knows only the last one."""
        self._phase = NONE
        self._began = 0.0
        """When the request that is being received began; 0: its first piece is being handled."""
        self._last_piece = 0.0
        """When its last piece arrived; before the first request, when the connection was made."""
        self._received = 0
        """Bytes of the pieces in which it arrives."""
        self._was_paused = False
        """Whether reading was paused when the limits of this request's body were last computed."""
        self._waits = True
        """Whether `Connections` has this connection as one on which no request is complete."""
        self._request_timer: asyncio.TimerHandle | None = None
        """Runs while a request may be due. It is not cancelled when the request is complete: that would cost more."""
        self._request_timer_at = 0.0
        self._spread = MAX_SPREAD * (id(self) // 16 % 97) / 97
        """The share of a wait that is added to it, so that connections of one moment do not end in one moment."""
        self._reader_watch: ReaderWatch | None = None
        """None: the client reads as fast as the answer is written."""
        self._refusal: Refusal | None = None
        """The reason for which the parser was stopped; None: the bytes are not HTTP."""
        self._on_disconnect: Callable[[], None] | None = None
        self._lost = False
        self._refused = False
        """The connection ends with a refusal; bytes that still arrive are dropped."""
        self._dropped = 0
        self._line_bytes = 0
        """Bytes received since the last complete head or the last piece of a body."""
        self._has_body = False
        """Whether the bytes that the parser was given last have a piece of a body."""
        self._is_http_1_1 = False
        """Whether the next head of a request is one of HTTP/1.1; False: the parser has to be asked."""
        self.timeout_keep_alive = self._limits.idle_seconds  # type: ignore[assignment]  # uvicorn only passes it to a timer

    @property
    def is_idle(self) -> bool:
        """Whether every request has been answered, and no other one has begun."""
        return self._phase is NONE and (self.cycle is None or self.cycle.response_complete)

    def drop(self) -> None:
        """Close the connection at once, without an answer."""
        self.transport.abort()

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

    def take_body(self) -> bytes | None:
        """The whole body of the request; None: it has not arrived yet, the caller has to use `receive`."""
        cycle = self.cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        if self.pipeline:  # then the cycle is that of a later request
            return None
        body = bytes(cycle.body)
        cycle.body = bytearray()
        cycle.message_event.clear()
        if self.flow.read_paused:
            self.flow.resume_reading()
        return body

    def write(self, body: bytes) -> bool:
        """Send a chunk of an answer that has begun; False: it can't be sent directly, the caller has to use `send`.

        An empty chunk only checks whether a chunk could be sent.
        """
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding or cycle.response_complete:
            return False
        if self.pipeline:  # then the cycle is that of a later request
            return False
        if body:
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def write_whole(self, send: Send, status: int, headers: Sequence[Header], body: bytes) -> bool:
        """Send a whole answer that has not begun; False: it can't be sent directly, the caller has to use `send`.

        Args:
            send: that of the app. If it is not uvicorn's own, something else sees or changes the answer.
            headers: the length of the body is one of them. Unusual values are left to uvicorn, which checks them.
        """
        cycle = self.cycle
        if (
            self.flow.write_paused
            or cycle.disconnected
            or cycle.response_started
            or not cycle.keep_alive
            or cycle.access_log
            or self.pipeline  # then the cycle is that of a later request
            or send != cycle.send
        ):
            return False
        kind = None
        for name, value in headers:
            if name == b"content-type" and kind is None and value in USUAL_TYPES:
                kind = value
            elif name != b"content-length" or value != b"%d" % len(body):
                return False
        if kind is None or len(headers) != 2:
            return False
        lines = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body))
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = cycle.chunked_encoding = False
        self.transport.write(b"".join(lines))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def peer_uid(self) -> int | None:
        """The unix user at the other end; None: the system does not tell. It is asked once a connection."""
        if not self._peer_is_known:
            self._peer_is_known = True
            connection = self.transport.get_extra_info("socket")
            self._peer_uid = None if connection is None else find_peer_uid(connection)
        return self._peer_uid

    # -- callbacks of the event loop ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows asyncio's type, too
        super().connection_made(transport)
        self._last_piece = now = self.loop.time()
        # A connection through a Unix socket has no address: it comes from this server's own processes.
        if self.client is None or self._connections.open(self, self.client[0], now):
            self._check_request_at(now + self._limits.head_seconds)
            return
        self._refused = True
        transport.write(raw_answer(too_many_connections(), self.server_state.default_headers))
        transport.close()

    def data_received(self, data: bytes) -> None:
        if self._phase is not BODY:
            end = data.find(b"\r\n\r\n", 0, UPGRADE_WITHIN)  # the body is not searched, which would take longer
            if data.find(b"pgrade:", 0, end if end > 0 else UPGRADE_WITHIN) > 0:
                data = without_upgrade(data)
        size = len(data)
        if self._refused:
            self._drop(size)
            return
        if self._line_bytes + size > MAX_HEAD:
            self._receive_in_parts(data)
            return
        cycle, self._has_body = self.cycle, False
        # Of the first request in these bytes. The parser makes a text of the version each time.
        end = data.find(b"\n")
        self._is_http_1_1 = (
            self._phase is NONE and end > len(_HTTP_1_1) and data.startswith(_HTTP_1_1, end - len(_HTTP_1_1))
        )
        HttpToolsProtocol.data_received(self, data)  # `super()` costs more than the call
        progress = self._has_body or self.cycle is not cycle  # a complete head has made a new cycle
        self._line_bytes = 0 if progress else self._line_bytes + size
        if self._phase is not NONE or self._waits or self.cycle.response_complete:
            self._time_request(size)

    def _receive_in_parts(self, data: bytes) -> None:
        """Give the parser no more than the limit leaves, so that it completes no head that is too long.

        The limit is exact for a head that starts a read. What precedes a head in the same part belongs to another
        request, and the parser doesn't say where that ends, so such a head may have one part more.
        """
        start = 0
        while start < len(data) and not self._refused:
            end = start + MAX_HEAD - self._line_bytes
            if end == start:
                self._refuse(head_too_large(MAX_HEAD))
            else:
                self.data_received(data[start:end])
            start = end

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > MAX_DROPPED:
            self.flow.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self.pipeline and self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        self._connections.close(self)
        if self._request_timer is not None:
            self._request_timer.cancel()  # it would keep this object in memory
        self._end_reader_watch()
        if self._on_disconnect is not None:
            self._on_disconnect()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.client is None:  # a process of this server, which has the time limits of its own client
            return
        self._reader_watch = ReaderWatch(self.transport, self.loop, lambda: self.cycle, self._limits.write_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_reader_watch()

    def _end_reader_watch(self) -> None:
        if self._reader_watch is not None:
            self._reader_watch.end()
            self._reader_watch = None

    # -- callbacks of uvicorn -------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answered = self.pipeline[-1][0]
        HttpToolsProtocol.on_response_complete(self)
        if not self.cycle.keep_alive and self.transport.is_closing():
            self._close()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    # -- callbacks of the parser ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._line_bytes = 0
        self._phase, self._began = HEAD, 0.0
        entries: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
            WATCH: self.watch,
            TAKE_BODY: self.take_body,
            WRITE: self.write,
            WRITE_WHOLE: self.write_whole,
            PEER_UID: self.peer_uid,
        }
        self.scope = entries  # type: ignore[assignment]  # ASGI allows entries of a server's own

    def on_header(self, name: bytes, value: bytes) -> None:
        known = KNOWN_NAMES.get(name)
        if known is None:
            HttpToolsProtocol.on_header(self, name, value)
        else:
            self.headers.append((known, value))

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            self._refusal = too_many_headers(MAX_HEADERS)
            raise self._refusal
        self._phase = BODY
        path = plain_path(self.url) if self._is_http_1_1 else None
        self._is_http_1_1 = False
        if path is None or self.root_path or self.limit_concurrency is not None:
            before = self.cycle
            HttpToolsProtocol.on_headers_complete(self)
            if len(self.pipeline) == 1:
                self._answered = before
            if self.scope["http_version"] == "1.0":
                end_by_closing(self.cycle)
            return
        parser, scope, before = self.parser, self.scope, self.cycle
        scope["method"] = parser.get_method().decode("ascii")
        scope["path"], scope["raw_path"], scope["query_string"] = path, self.url, b""
        # By position: names would cost as much as the rest of this method.
        cycle = self.cycle = RequestResponseCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            parser.should_keep_alive(),
            self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            if not self.pipeline:
                self._answered = before
            self.pipeline.appendleft((cycle, self.app))

    def on_chunk_header(self) -> None:
        self.headers = []  # trailers are not headers: the scope keeps the list of the head

    def on_body(self, body: bytes) -> None:
        self._has_body = True
        cycle = self.cycle
        if cycle.response_complete:
            return
        held: bytes | bytearray = cycle.body
        if not held:  # most bodies come in one piece, which is not copied
            held = body
        elif type(held) is bytes:
            held = bytearray(held) + body
        else:
            held += body
        cycle.body = held  # type: ignore[assignment]  # uvicorn only converts it to bytes
        if len(held) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._phase = NONE
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    # -- time limits ----------------------------------------------------------------------------------------

    def _time_request(self, size: int) -> None:
        """Start or go on with the time limits of a request, of which a piece of `size` bytes has arrived."""
        now = self.loop.time()
        if self._phase is NONE:
            if self.cycle is None:
                return  # blank lines before the first request: the limit of the new connection goes on
            self._last_piece = now
            if not self.cycle.response_complete:
                self._waits = False
                self._connections.end_wait(self)
                return
            # What has arrived was the rest of an answered request, or blank lines. uvicorn's timer has ended with it.
        else:
            if not self._began:
                self._began, self._received = now, 0
            self._last_piece = now
            self._received += size
            if self._received > MAX_REST and self._phase is BODY and self.cycle.response_complete:
                self._close()
                return
            if not self._waits:
                self._waits = True
                self._connections.wait(self, now)
        deadline = self._request_deadline(now)
        if deadline is not None:
            self._check_request_at(deadline)

    def _request_deadline(self, now: float) -> float | None:
        """When the next piece of a request, or the whole of it, has to be here; None: nothing is due."""
        limits = self._limits
        if self._phase is HEAD:
            return self._began + limits.head_seconds
        if self._phase is BODY:
            if self.flow.read_paused or self._was_paused:  # the client cannot send, or could not until a moment ago
                self._was_paused = self.flow.read_paused
                self._began = self._last_piece = now
            slowest = limits.body_seconds + self._received / MIN_SPEED
            return min(self._last_piece + limits.body_seconds, self._began + slowest)
        if self.cycle is None:
            return self._last_piece + limits.head_seconds
        return self._last_piece + limits.idle_seconds if self.cycle.response_complete else None

    def _check_request_at(self, deadline: float) -> None:
        timer = self._request_timer
        if timer is not None:
            if self._request_timer_at <= deadline:
                return  # it checks earlier, and then goes on to wait
            timer.cancel()
        now = self.loop.time()
        wait = max(0.0, deadline - now) * (1.0 + self._spread)
        self._request_timer_at = now + wait
        self._request_timer = self.loop.call_later(wait, self._check_request)

    def _check_request(self) -> None:
        self._request_timer = None
        if self._refused or self.transport.is_closing():
            return
        now = self.loop.time()
        if now - self._request_timer_at > LATE_SECONDS:
            self._check_request_at(now + 1.0)
            return
        deadline = self._request_deadline(now)
        if deadline is None or (self._phase is NONE and self.timeout_keep_alive_task is not None):
            return  # an answer is due, or uvicorn's timer runs
        if now < deadline:
            self._check_request_at(deadline)
        elif self._phase is HEAD or (self._phase is BODY and not self.cycle.response_complete):
            self._refuse((head_too_slow if self._phase is HEAD else body_too_slow)(self._limits))
        else:
            self._close()

    def _close(self) -> None:
        """Close the connection once the client has read what was written, within the time limit."""
        if not self.transport.is_closing():  # a transport of TLS that is closed twice can be asked nothing any more
            self.transport.close()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    # -- refusals without a request -------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for bytes that are not HTTP."""
        self._refuse(self._refusal or Refusal(Code.INVALID_HTTP, msg))

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
                self.transport.close()  # a client would read a refusal as a part of the answer
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.write(raw_answer(refusal, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self._close)
