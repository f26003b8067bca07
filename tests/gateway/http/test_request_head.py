"""What a client may send that is no request: heads without an end, and bytes that are not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gateway.harness import listening
from tests.support.cases import in_one_test
from xinference.gateway.http import uvicorn_protocol
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.uvicorn_protocol import MAX_HEAD

PATHS = ("/v1/chat/completions", "/v1/messages", "/v1/models/m", "/metrics")
SMALL = b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST /chunked HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"


@dataclass
class Recorder:
    """An app that notes each request, and answers it with its path once `go` is set."""

    requests: list[tuple[str, dict[bytes, bytes]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append((scope["path"], dict(scope["headers"])))
        self.arrived.set()
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})


@dataclass
class Client:
    """A connection to a server in front of a `Recorder`."""

    app: Recorder
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
        return int(lines[0].split()[1]), headers

    async def read_refusal(self) -> tuple[int, Any]:
        """The status and JSON of the connection's last answer."""
        status, headers = await self.read_head()
        assert headers["connection"] == "close"
        answer = json.loads(await self.reader.readexactly(int(headers["content-length"])))
        assert await self.reader.read() == b""
        assert answer["error"]["code"] == answer["problem"]["code"]
        assert answer["detail"] == answer["error"]["message"]
        return status, answer

    async def read_path(self) -> bytes:
        """The path that the app answers with."""
        status, headers = await self.read_head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        size = int(await self.reader.readline(), 16)
        path = await self.reader.readexactly(size)
        assert await self.reader.readexactly(7) == b"\r\n0\r\n\r\n"
        return path


@contextlib.asynccontextmanager
async def connected(*, answers: bool = True) -> AsyncIterator[Client]:
    app = Recorder()
    if answers:
        app.go.set()
    async with listening(app) as (_, _, url):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        try:
            yield Client(app, reader, writer)
        finally:
            writer.close()
            app.go.set()


def head(path: str = "/", size: int = 0, *, count: int = 1) -> bytes:
    """A head of `size` bytes, or of what it needs, whose padding is in `count` headers."""
    start = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n".encode()
    names = [b"X-%d: " % number for number in range(count)]
    each, rest = divmod(size - len(start) - 2 - sum(len(name) + 2 for name in names), count)
    padding = [b"a" * (each + (rest if number == 0 else 0)) for number in range(count)] if size else []
    lines = [name + value + b"\r\n" for name, value in zip(names, padding, strict=False)]
    return start + b"".join(lines) + b"\r\n"


async def pump(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send `piece` again and again, until the server closes the connection."""
    with contextlib.suppress(OSError):
        while True:
            writer.write(piece)
            await writer.drain()


@in_one_test("path", PATHS)
@in_one_test("count", [1, 1000], ids=["one huge header", "many small ones"])
async def test_a_head_that_is_too_long_is_refused_on_every_path(path: str, count: int) -> None:
    async with connected() as client:
        client.send(head(path, 1024 * 1024, count=count))
        status, answer = await client.read_refusal()
        assert (status, answer["error"]["code"]) == (431, "headers_too_large")
        assert str(MAX_HEAD) in answer["detail"] and answer["problem"]["hint"] in answer["detail"]
        assert client.app.requests == []


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET / HTTP/1.1\r\nX: ", b"a" * 1000),
        (b"GET / HTTP/1.1\r\n", b"X: a\r\n" * 100),
        (b"GET /", b"a" * 1000),
        (b"", b"\r\n" * 500),
        (b"GET / HTTP/1.1\r\n", b"a" * 1000),
    ],
    ids=["value", "headers", "path", "nothing", "name"],
)
async def test_a_head_that_never_ends_is_refused(start: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn_protocol, "LINGER_SECONDS", 0.1)
    async with connected() as client:
        client.send(start)
        sending = asyncio.create_task(pump(client.writer, piece))
        assert (await client.read_refusal())[0] == 431
        assert client.app.requests == []
        await sending


@pytest.mark.parametrize(
    ("start", "piece"),
    [(b"0\r\nX: ", b"a" * 1000), (b"0\r\n", b"X: a\r\n" * 100), (b"1;", b"a" * 1000)],
    ids=["trailer", "trailers", "extension"],
)
async def test_trailers_and_chunk_extensions_that_never_end_are_refused(
    start: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn_protocol, "LINGER_SECONDS", 0.1)
    async with connected() as client:
        client.send(CHUNKED + start)
        sending = asyncio.create_task(pump(client.writer, piece))
        assert (await client.read_refusal())[0] == 431
        assert client.app.bodies == []
        await sending


@pytest.mark.parametrize("pieces", [1, 7])
async def test_the_limit_is_exact(pieces: int) -> None:
    for size, expected in ((MAX_HEAD, 200), (MAX_HEAD + 1, 431)):
        async with connected() as client:
            data = head("/", size, count=3)
            assert len(data) == size
            step = -(-size // pieces)
            for start in range(0, size, step):
                client.send(data[start : start + step])
                await client.writer.drain()
                await asyncio.sleep(0)
            client.send(b"{}")
            assert (await client.read_head())[0] == expected


async def test_each_request_of_a_connection_has_the_whole_limit() -> None:
    async with connected() as client:
        for number in range(3):
            for piece in (head(f"/{number}", MAX_HEAD), b"{", b"}"):
                client.send(piece)
                await client.writer.drain()
            assert await client.read_path() == b"/%d" % number


async def test_requests_that_follow_each_other_at_once_are_all_answered() -> None:
    async with connected() as client:
        client.send(b"".join(head(f"/{number}", 20_000) + b"{}" for number in range(20)))
        for number in range(20):
            assert await client.read_path() == b"/%d" % number


async def test_a_long_body_is_no_head() -> None:
    async with connected() as client:
        body = b"x" * (5 * MAX_HEAD)
        chunk = b"%x\r\n%b\r\n" % (len(body), body)
        client.send(b"POST /long HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert await client.read_path() == b"/long"
        client.send(CHUNKED + chunk + chunk + b"0\r\n\r\n")
        assert await client.read_path() == b"/chunked"
        assert client.app.bodies == [body, b"a" + body + body]


async def test_trailers_are_not_headers() -> None:
    async with connected() as client:
        client.send(CHUNKED + b"0\r\nX-API-Key: secret\r\n\r\n")
        assert await client.read_path() == b"/chunked"
        assert client.app.requests[0][1].keys() == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize("bad", [b"X" * 2 * MAX_HEAD, b"no http\r\n\r\n"], ids=["too long", "no HTTP"])
async def test_an_answer_that_is_due_comes_before_the_end_and_no_refusal_within_it(bad: bytes) -> None:
    async with connected(answers=False) as client:
        client.send(SMALL)
        await client.app.arrived.wait()
        client.send(SMALL.replace(b"small", b"next") + bad)
        await asyncio.sleep(0)
        client.app.go.set()
        assert await client.read_path() == b"/small"
        assert await client.read_path() == b"/next"
        with contextlib.suppress(ConnectionResetError):  # it may close while we still send
            assert await client.reader.read() == b""


SMUGGLED = b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"


@in_one_test(
    "headers",
    [
        *(b"X: a\r\n b\r\n", b"X: a\r\n\tb\r\n", b" X: a\r\n"),
        *(SMUGGLED, b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"),
        *(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"Content-Length: 1\r\nContent-Length: 2\r\n"),
        *(b"Content-Length: 1, 1\r\n", b"Content-Length: +1\r\n", b"Content-Length: -1\r\n"),
        *(b"Content-Length: 99999999999999999999\r\n", b"Content-Length: 0x1\r\n"),
        *(b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding: chunked, gzip\r\n", b"Transfer-Encoding: xchunked\r\n"),
        *(b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        *(b"X: a\x00b\r\n", b"X: a\rY: b\r\n", b"X: a\nY: b\r\n", b"X a: b\r\n", b"X\r\n", b": a\r\n"),
    ],
    ids=repr,
)
async def test_a_head_that_two_servers_could_read_differently_is_refused(headers: bytes) -> None:
    async with connected() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n0\r\n\r\n" + SMALL)
        status, answer = await client.read_refusal()
        assert (status, answer["error"]["code"]) == (400, "invalid_http")
        assert client.app.bodies == []


@in_one_test("chunk", [b"zz\r\n", b"1\na\r\n", b"1 \r\na\r\n", b"-1\r\na\r\n", b"1\r\nab\r\n", b"\r\n"], ids=repr)
async def test_a_bad_chunk_is_refused_and_its_request_is_not_served(chunk: bytes) -> None:
    async with connected() as client:
        client.send(CHUNKED + chunk + b"0\r\n\r\n" + SMALL)
        assert (await client.read_refusal())[0] == 400
        assert client.app.bodies == []


@in_one_test(
    "offer",
    [
        "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: h2c",
        "Upgrade: TLS/1.2\r\nConnection: Upgrade",
        "connection: upgrade\r\nupgrade: h2c",
    ],
)
@in_one_test("pieces", [1, 2])
async def test_the_body_after_an_offer_of_another_protocol_is_read(offer: str, pieces: int) -> None:
    start = f"POST /offer HTTP/1.1\r\nHost: localhost\r\n{offer}\r\nContent-Length: 4\r\n\r\n".encode()
    async with connected() as client:
        for data in [start + b"body"] if pieces == 1 else [start, b"body"]:
            client.send(data)
            await client.writer.drain()
        assert await client.read_path() == b"/offer"
        assert client.app.bodies == [b"body"]


async def test_a_body_with_the_words_of_an_offer_is_read_as_it_is() -> None:
    body = b'{"a": "\\r\\nupgrade: h2c"}\r\nupgrade: h2c\r\n'
    start = f"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with connected() as client:
        client.send(start + body)
        assert await client.read_path() == b"/a"
        assert client.app.bodies == [body]
