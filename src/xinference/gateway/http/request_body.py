"""Reads a request's body, and watches for a client that disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

from xinference.error_codes import Code
from xinference.gateway.http.asgi import Receive, Scope
from xinference.gateway.http.scope_entries import (
    WATCH,
    TakeBody,
    Watch,
)
from xinference.protocol.errors import Header, Refusal

#: curl's `-d` sends the content type of a form.
JSON_HINT = "Add the header Content-Type: application/json; for curl: -H 'Content-Type: application/json'."
#: A body of at most this many bytes is not counted: it takes little, and counting takes time.
SMALL_BODY = 256 * 1024


class BodyMemory:
    """The bytes of all larger bodies that are being received, or whose requests are in flight."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._total = 0
        self.held: dict[object, int] = {}
        """Bytes by request."""

    def take(self, request: object, size: int) -> None:
        """Count that `request` has `size` bytes now.

        Raises:
            Refusal: 503, all bodies together would have more than the maximum.
        """
        total = self._total + size - self.held.get(request, 0)
        if total > self._maximum:
            cause = f"The bodies of the requests in flight may have {self._maximum} bytes together."
            raise Refusal(Code.BODIES_TOO_LARGE, cause, retry_after=5)
        self._total, self.held[request] = total, size

    def give_back(self, request: object) -> None:
        """Count that the request is answered."""
        self._total -= self.held.pop(request, 0)


class ClientLeftError(Exception):
    """The client disconnected before its request was read."""


async def read_body(
    receive: Receive,
    headers: dict[bytes, bytes],
    limit: int,
    memory: BodyMemory | None = None,
    request: object = None,
    take: TakeBody | None = None,
) -> bytes:
    """Read the whole body, at most `limit` bytes.

    Args:
        memory: counts the body for `request`, and has to be told when that is answered.
        take: returns the body if the server has the whole of it; see `Protocol.take_body`.

    Raises:
        Refusal: 413; before anything is read if ``Content-Length`` exceeds the limit. 503: see `BodyMemory.take`.
        ClientLeftError: the client disconnected.
    """
    if take is not None and (body := take()) is not None:
        if len(body) > limit:
            raise body_too_large(headers, limit, f"{len(body)} bytes")
        if len(body) > SMALL_BODY and memory is not None:
            memory.take(request, len(body))
        return body
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise body_too_large(headers, limit, f"{int(length)} bytes")
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise body_too_large(headers, limit, "larger")
        if size > SMALL_BODY and memory is not None:
            memory.take(request, size)
        more = message.get("more_body", False)
        if not more and not pieces:
            return piece
        pieces.append(piece)
    return b"".join(pieces)


def check_content_type(headers: dict[bytes, bytes]) -> None:
    """Accept JSON, or a request without a content type.

    A browser sends JSON to another origin only after a preflight request, which is refused.

    Raises:
        Refusal: 415 for any other content type.
    """
    content_type = headers.get(b"content-type")
    if content_type == b"application/json":  # as nearly all clients write it
        return
    if content_type and content_type.partition(b";")[0].strip().lower() != b"application/json":
        shown = content_type[:100].decode("latin-1")
        cause = f"The content type must be application/json, not {shown!r}."
        raise Refusal(Code.UNSUPPORTED_MEDIA_TYPE, cause, hint=JSON_HINT)


def body_too_large(headers: dict[bytes, bytes], limit: int, size: str) -> Refusal:
    """The refusal of a body with more than `limit` bytes; `size` completes "this one is"."""
    cause = f"The request body may have at most {limit} bytes; this one is {size}."
    return Refusal(Code.REQUEST_TOO_LARGE, cause, headers=closing(headers.items()))


def closing(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers that an answer needs if it is sent before the request's body has been read.

    The server reads and drops the rest of the body, so the connection stays usable. But a client that waits for "100
    Continue" may send no body at all, and the server would read its next request as the body. So this connection is
    closed.
    """
    return ((b"connection", b"close"),) if any(name == b"expect" for name, _ in headers) else ()


class ClientWatch:
    """A context that cancels its task when the client disconnects; it then exits without an exception, with `left` set.

    Works like `asyncio.timeout`, with the disconnect in place of the deadline. Our server reports a disconnect by a
    callback; with another server, a task waits for it. `abort` ends the context in the same way, with `aborted` set.
    """

    __slots__ = ("_receive", "_task", "_watch", "_watcher", "aborted", "left")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._watch: Watch | None = scope.get(WATCH)
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self.left = self.aborted = False

    def __enter__(self) -> ClientWatch:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._watch is not None:
            self._watch(self._leave)
        else:
            self._watcher = asyncio.create_task(self._wait())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._watch is not None:
            self._watch(None)
        if self._watcher is not None:
            self._watcher.cancel()
        if not self.left and not self.aborted:
            return False
        still_cancelled = self._task.uncancel() > 0
        return kind is asyncio.CancelledError and not still_cancelled

    def abort(self) -> None:
        """Cancel the task, which is in the context."""
        if not self.left and not self.aborted:
            self.aborted = True
            self._task.cancel()

    def _leave(self) -> None:
        if not self.left and not self.aborted:
            self.left = True
            self._task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()
