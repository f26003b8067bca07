"""A client that measures its requests itself, on sockets of its own: it shares no code with the server.

The time of each byte is taken when the socket has it, before anything is decoded.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

#: Length of the shortest body: each request is as many bytes longer as its number, so that its record is found.
BASE_BYTES = 4000


@dataclass
class Measured:
    """One request as its client saw it. None: not seen."""

    number: int
    kind: str
    model: str
    path: str
    stream: bool
    body_bytes: int
    status: int = 0
    prompt: int | None = None
    output: int | None = None
    cached: int | None = None
    first: float | None = None
    """Seconds from the last byte of the request to the piece with the first content."""
    total: float = 0.0
    contents: int = 0
    """Events with content."""
    left: bool = False
    error: str = ""
    alone: bool = False
    """No other request ran at the same time."""


@dataclass(frozen=True)
class Ask:
    """One kind of request."""

    kind: str
    path: str
    body: dict[str, Any]
    leave_after: int = 0
    """Close the connection after this number of events with content; 0: read the answer to its end."""
    then: Callable[[], None] | None = field(default=None, compare=False)
    """Called in place of closing the connection; the answer is read to its end."""


def send(port: int, number: int, ask: Ask, *, alone: bool = False) -> Measured:
    """Send one request, and measure its answer."""
    body = json.dumps(ask.body).encode()
    length = BASE_BYTES + number
    assert len(body) <= BASE_BYTES, "the body is padded to a length of its own"
    body += b" " * (length - len(body))
    model, stream = str(ask.body.get("model")), bool(ask.body.get("stream"))
    measured = Measured(number, ask.kind, model, ask.path, stream, length, alone=alone)
    head = (
        f"POST {ask.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        connection.sendall(head.encode() + body)
        _read(connection, began, measured, ask)
        measured.total = time.perf_counter() - began
    return measured


def _read(connection: socket.socket, began: float, measured: Measured, ask: Ask) -> None:
    events, raw, then = _Events(), b"", ask.then
    headers = b""
    while piece := connection.recv(65536):
        now = time.perf_counter()
        raw += piece
        if not headers:
            headers, separator, rest = raw.partition(b"\r\n\r\n")
            if not separator:
                headers = b""
                continue
            measured.status, raw = int(headers.split()[1]), rest
        if b"text/event-stream" not in headers.lower():
            continue
        chunks, raw = _chunks(raw)
        for event in events.add(chunks):
            _note(measured, event, now - began)
        if ask.leave_after and measured.contents >= ask.leave_after:
            if then is None:
                measured.left = True
                return
            then()
            then = None
            ask = Ask(ask.kind, ask.path, ask.body)
    if b"text/event-stream" not in headers.lower():
        if b"chunked" in headers.lower():
            raw, _ = _chunks(raw)
        _note_whole(measured, json.loads(raw) if raw else {})


def _chunks(raw: bytes) -> tuple[bytes, bytes]:
    """The data of the complete chunks, and the rest."""
    data = b""
    while True:
        line, separator, rest = raw.partition(b"\r\n")
        if not separator:
            return data, raw
        size = int(line, 16)
        if len(rest) < size + 2:
            return data, raw
        data, raw = data + rest[:size], rest[size + 2 :]


class _Events:
    """Complete server-sent events."""

    def __init__(self) -> None:
        self._rest = b""

    def add(self, data: bytes) -> Iterator[dict[str, Any]]:
        *complete, self._rest = (self._rest + data).split(b"\n\n")
        for event in complete:
            for line in event.splitlines():
                if line.startswith(b"data:") and not line.endswith(b"[DONE]"):
                    yield json.loads(line[5:])


def _note(measured: Measured, event: dict[str, Any], seconds: float) -> None:
    nested = event.get("response") or event.get("message") or {}
    for usage in (event.get("usage"), nested.get("usage") if isinstance(nested, dict) else None):
        _note_usage(measured, usage or {})
    if error := event.get("error"):
        measured.error = str(error.get("code") or error.get("type"))
    if _has_content(event):
        measured.contents += 1
        if measured.first is None:
            measured.first = seconds


def _note_usage(measured: Measured, usage: dict[str, Any]) -> None:
    cached = (usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}).get("cached_tokens")
    read = usage.get("cache_read_input_tokens")
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    if prompt is not None and read is not None:  # Anthropic's form counts them apart
        prompt, cached = prompt + read, read
    output = usage.get("completion_tokens", usage.get("output_tokens"))
    for name, value in (("prompt", prompt), ("output", output), ("cached", cached)):
        if value is not None:
            setattr(measured, name, max(value, getattr(measured, name) or 0))


def _note_whole(measured: Measured, answer: dict[str, Any]) -> None:
    _note_usage(measured, answer.get("usage") or {})
    error = answer.get("error")
    if isinstance(error, dict):
        measured.error = str(error.get("code") or error.get("type"))


def _has_content(event: dict[str, Any]) -> bool:
    texts: list[Any] = []
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        texts.append(choice.get("text"))
        texts += [delta.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls")]
    delta = event.get("delta")
    if isinstance(delta, str):
        texts.append(delta if str(event.get("type", "")).endswith(".delta") else None)
    elif isinstance(delta, dict):
        texts += [delta.get(name) for name in ("text", "thinking", "partial_json")]
    return any(texts)
