"""The management API in a gateway process: a proxy that relays requests to the server and streams its answers."""

from __future__ import annotations

from collections.abc import Iterable

import httpx2

from xinference.error_codes import Code
from xinference.gateway.auth.peer import OWNER_HEADER
from xinference.gateway.http.asgi import Receive, Reply, Scope, Send
from xinference.gateway.http.error_replies import refuse_management
from xinference.gateway.http.request_body import ClientLeftError, ClientWatch, read_body
from xinference.gateway.workers.server_watch import ServerWatch
from xinference.keys.visibility import FROM_OWNER
from xinference.protocol.errors import Header, Refusal

#: Headers that concern one connection only, and those that the HTTP server of this process adds.
NOT_PASSED = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect", b"date"}
)
#: Headers that this process sets for the server.
OURS = frozenset({b"content-length", OWNER_HEADER[0]})


def end_to_end(headers: Iterable[Header]) -> list[Header]:
    """The headers that a proxy passes on, names in lower case; RFC 9110, section 7.6.1, lists the other headers."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {option.strip().lower() for name, value in lowered if name == b"connection" for option in value.split(b",")}
    return [(name, value) for name, value in lowered if name not in NOT_PASSED and name not in named]


class ManagementProxy:
    """An ASGI app that relays requests to the server over its private socket, which checks the client's key again."""

    def __init__(self, socket_path: str, limit: int, watch: ServerWatch | None = None) -> None:
        """`limit`: maximum bytes of a request's body."""
        self._limit = limit
        self._watch = watch or ServerWatch()
        # A new connection for each request: the server may close an idle connection at the moment of its use.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        self._transport = httpx2.AsyncHTTPTransport(uds=socket_path, limits=limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        reply = Reply(send)
        headers: list[Header] = [*scope.get("headers", ())]
        try:
            body = await read_body(receive, dict(headers), self._limit)
            with ClientWatch(scope, receive):
                await self._forward(scope, headers, body, reply)
        except ClientLeftError:
            return
        except Refusal as refusal:
            await refuse_management(reply, refusal, openai=False)
        except httpx2.TransportError as error:
            if not reply.started:  # else the client sees that the answer is incomplete
                why = Refusal(Code.SERVER_UNREACHABLE, f"The server does not answer: {error!r}.", retry_after=1)
                await refuse_management(reply, why, openai=False)

    async def _forward(self, scope: Scope, headers: list[Header], body: bytes, reply: Reply) -> None:
        target = scope.get("raw_path") or scope["path"].encode()
        if scope.get("query_string"):
            target += b"?" + scope["query_string"]
        passed = [header for header in end_to_end(headers) if header[0] not in OURS]
        if scope.get(FROM_OWNER):
            passed.append(OWNER_HEADER)
        if body or any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            passed.append((b"content-length", b"%d" % len(body)))
        request = httpx2.Request(
            scope["method"],
            httpx2.URL(scheme="http", host="server", raw_path=target),
            headers=passed,
            stream=httpx2.ByteStream(body),
            extensions={"timeout": {"connect": 5.0}},
        )
        answer = await self._watch.answer_of(self._transport.handle_async_request(request))
        try:
            await reply.start(answer.status_code, end_to_end(answer.headers.raw))
            assert isinstance(answer.stream, httpx2.AsyncByteStream)
            async for piece in answer.stream:
                await reply.send({"type": "http.response.body", "body": piece, "more_body": True})
            await reply.end()
        finally:
            await answer.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()
