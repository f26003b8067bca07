"""An engine that computes nothing: OpenAI's protocol with prepared bytes, at maximum speed or at a fixed rate.

``python -m benchmarks.gateway.engine`` prints its port. The request sets the answer: ``max_tokens`` events if
``stream``, ``user`` events a second if that text is a number. Each event is a separate write, as engines do it.
"""

from __future__ import annotations

import asyncio
import json
from typing import cast

import msgspec
import uvloop

MODEL = "costless"


def _head(kind: bytes, rest: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n" + rest + b"\r\n\r\n"


def _whole(value: object) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    return _head(b"application/json", b"Content-Length: %d" % len(body)) + body


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    """One event as llama.cpp writes it, in one piece of the chunked encoding."""
    choice = {"finish_reason": finish, "index": 0, "delta": delta}
    fields = {"created": 1763900000, "id": "chatcmpl-JmVY8cD6yNRZ3ndDWXVsWVXy9pzLh0Ku", "model": MODEL}
    rest = {"system_fingerprint": "b7097-costless", "object": "chat.completion.chunk"}
    data = b"data: " + json.dumps({"choices": [choice], **fields, **rest}, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = _head(b"text/event-stream", b"Transfer-Encoding: chunked")
EVENT = _event({"content": " token"})
DONE = _event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
ANSWER = _whole(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there."}, "finish_reason": "stop"}],
        "id": "chatcmpl-JmVY8cD6yNRZ3ndDWXVsWVXy9pzLh0Ku",
        "object": "chat.completion",
        "model": MODEL,
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
)
HEALTH = _whole({"status": "ok"})
MODELS = _whole({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


class AnswerSettings(msgspec.Struct):
    """The fields of a request that set its answer."""

    stream: bool = False
    max_tokens: int = 16
    user: str = ""
    """Events a second; empty: as fast as they can be written."""


class Connection(asyncio.Protocol):
    """One client: complete requests in, prepared bytes out, never more than the client reads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._decoder = msgspec.json.Decoder(AnswerSettings)
        self._held = b""
        self._left = 0
        self._rate = 0.0
        self._due = 0.0
        self._paused = self._gone = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._left:
            self._next()

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        head, found, rest = data.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:") if found else -1
        length = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        if not found or len(rest) < length:
            self._held = data
            return
        self._held = b""
        self._answer(head, rest[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        assert self._transport is not None
        if not head.startswith(b"POST"):
            self._transport.write(MODELS if b"/v1/models" in head[:40] else HEALTH)
            return
        wish = self._decoder.decode(body)
        if not wish.stream:
            self._transport.write(ANSWER)
            return
        self._left, self._rate, self._due = wish.max_tokens, float(wish.user or 0), self._loop.time()
        self._transport.write(STREAM_HEAD)
        self._next()

    def _next(self) -> None:
        if not self._rate:
            self._loop.call_soon(self._event)
            return
        self._due += 1 / self._rate
        self._loop.call_at(self._due, self._event)

    def _event(self) -> None:
        if self._gone or self._paused or not self._left:
            return
        assert self._transport is not None
        self._left -= 1
        self._transport.write(EVENT if self._left else EVENT + DONE)
        if self._left:
            self._next()


async def serve() -> None:
    """Serve on a free port until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
