"""A small HTTP server on loopback that gives canned answers and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Answer:
    """One canned answer; `body` may be an iterable of pieces, sent one by one until the connection is closed."""

    body: Any = None
    status: int = 200
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    method: str
    path: str
    query: str
    body: Any
    headers: dict[str, str]


@dataclass
class Canned:
    """What the server answers: (method, path) -> an answer, or a list of answers of which the last one stays."""

    url: str
    answers: dict[tuple[str, str], Answer | list[Answer] | Callable[[Asked], Answer]]
    close: Callable[[], None]
    asked: list[Asked] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client went away before its answer was complete."""

    def asked_for(self, method: str, path: str) -> list[Asked]:
        return [a for a in self.asked if (a.method, a.path) == (method, path)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        found = self.answers.get((asked.method, asked.path))
        if found is None:
            return Answer({"detail": f"nothing canned for {asked.method} {asked.path}"}, 404)
        if isinstance(found, Answer):
            return found
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found(asked)


def events(*items: dict[str, Any] | str, then: Callable[[], object] | None = None) -> Answer:
    """A stream of server-sent events; `then` is called (and may block) before it ends."""

    def pieces() -> Iterator[bytes]:
        for item in items:
            data = item if isinstance(item, str) else json.dumps(item)
            yield f"data: {data}\n\n".encode()
        if then is not None:
            then()

    return Answer(pieces(), content_type="text/event-stream")


def problem(status: int, code: str, cause: str, **rest: Any) -> Answer:
    return Answer({"detail": cause, "problem": {"code": code, "status": status, "cause": cause, **rest}}, status)


@contextmanager
def serving() -> Iterator[Canned]:
    """A running canned server that knows /health only, until told more."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            asked = Asked(self.command, parts.path, parts.query, body, {k.lower(): v for k, v in self.headers.items()})
            answer = canned.answer(asked)
            self.send_response(answer.status)
            self.send_header("content-type", answer.content_type)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in _pieces(answer.body):
                    self.wfile.write(piece)
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                canned.left.set()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    url = f"http://127.0.0.1:{server.server_address[1]}"
    canned = Canned(url, {("GET", "/health"): Answer({"status": "ok"})}, close=server.server_close)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield canned
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pieces(body: Any) -> Iterable[bytes]:
    if isinstance(body, bytes):
        return [body]
    if isinstance(body, str):
        return [body.encode()]
    if body is None or isinstance(body, dict | list):
        return [json.dumps(body).encode()]
    pieces: Iterable[bytes] = body
    return pieces
