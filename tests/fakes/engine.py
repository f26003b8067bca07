"""A scriptable engine process: OpenAI's protocol, no model, misbehaviour on request.

``FAKE_ENGINE_KEY=secret python tests/fakes/engine.py --port 8001 --script '{"chunks": 3}'``

Standard library only, so that it starts at once. `DEFAULTS` names everything a script may say.
A `Bearer` key is asked for on every path but ``/health`` and ``/stats``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.shared_memory import SharedMemory
from typing import Any

DEFAULTS: dict[str, Any] = {
    # -- start
    "model_name": "fake",  # the id that /v1/models lists
    "listen_delay": 0.0,  # seconds before the port is opened
    "health_delay": 0.0,  # seconds after the start during which /health answers 503
    "models_status": 200,  # status of /v1/models when the key is right
    # -- answers to POST; "stream": true in the request's body chooses the streamed form
    "chunks": 5,  # content events of a stream, and words of a whole answer
    "interval": 0.0,  # seconds between two events
    "delay": 0.0,  # seconds before the first byte of any answer to a POST
    "text": "word ",  # what each event says
    "usage": True,  # end a stream with a usage event; False: never; "asked": if stream_options.include_usage
    "shape": None,  # answer chats as an engine does: {"engine": "vLLM" or "SGLang", "thoughts", "calls", "cached"}
    "status": None,  # answer every POST with this status and `body` (JSON value) instead
    "body": None,
    "headers": {},  # further response headers for POST
    "echo": False,  # answer every POST with {"method", "path", "headers", "body", "body_base64"}
    "record": "",  # file to which each POST is added as a line, {"method", "path", "headers", "body", "body_base64"};
    #                the answers then have the form of their path
    "drop_requests": 0,  # close the connection without one byte for this many first POSTs
    "agent": None,  # {"command", "text"}: answer an agent with a call of its shell, then with the text
    # -- death: {} never; one of the keys at_start (bool), after_seconds (float), on_request (bool: before any byte),
    #    after_chunks (int, of one stream), mid_event (int: half of this event is sent, counted from 0);
    #    and how: "code" (exit status, default 1) or "signal" (name, as "SIGKILL"); "on": only for a body with this text
    "die": {},
    # -- misbehaviour on a POST whose body contains the text "on" (any POST without it)
    "hang": {},  # "how": "sleep" or "spin": its only loop answers nothing more, idle or busy
    "eat": {},  # "mib_per_second": memory that it takes from then on; others are answered
    # -- process
    "ignore_sigterm": False,
    "leave_file": False,  # leave a file in the temporary folder, and print its path
    "shared_memory": False,  # make shared memory by Python's multiprocessing, and print its path
    "children": 0,  # sleeping child processes in the engine's own process group
    "detached_children": 0,  # the same, each in a session of its own
    "print_lines": 0,  # lines printed at the start ...
    "line": "log line {n}",  # ... and their text
}


#: Whole answers by path, other than those of chats and completions.
FORMS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"object": "list", "data": [{"index": 0, "embedding": [0.5, 0.5]}], "usage": {"total_tokens": 1}},
    "/v1/rerank": {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 1}},
    "/rerank": {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 1}},
    "/v1/messages": {
        "id": "fake-1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "word"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 1},
    },
    "/v1/messages/count_tokens": {"input_tokens": 7},
    "/tokenize": {"tokens": [1], "count": 1, "max_model_len": 9},
    "/detokenize": {"content": "word", "prompt": "word"},
}


class ClientLeftError(Exception):
    """The other side closed the connection before its answer was complete."""


@dataclass
class Stats:
    """What /stats answers: POSTs taken, answers the client did not wait for, stream events sent."""

    requests: int = 0
    cancelled: int = 0
    chunks_sent: int = 0


@dataclass(frozen=True)
class Request:
    """One HTTP request, whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object; {} if it is none."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass
class Engine:
    """The scripted server."""

    script: dict[str, Any]
    key: str
    stats: Stats = field(default_factory=Stats)
    started: float = field(default_factory=time.monotonic)

    async def serve(self, port: int) -> None:
        """Listen on loopback until killed."""
        await asyncio.sleep(self.script["listen_delay"])
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        print(f"listening on {port}", flush=True)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._answer(request, Answer(reader, writer)):
                    break
        except (ClientLeftError, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Request, answer: Answer) -> bool:
        """Answer one request; False: close the connection."""
        if request.path == "/health":
            healthy = time.monotonic() - self.started >= self.script["health_delay"]
            await answer.json(200 if healthy else 503, {"status": "ok" if healthy else "loading"})
        elif request.path == "/stats":
            await answer.json(200, vars(self.stats))
        elif self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            await answer.json(401, {"error": {"message": "wrong key", "type": "authentication_error"}})
        elif request.path == "/progress":
            await answer.json(200, {"status": "ok"})
        elif request.path == "/v1/models":
            listing = {"object": "list", "data": [{"id": self.script["model_name"], "object": "model"}]}
            await answer.json(self.script["models_status"], listing)
        elif request.method == "POST":
            return await self._post(request, answer)
        else:
            await answer.json(404, {"error": {"message": f"no {request.path} here"}})
        return True

    async def _post(self, request: Request, answer: Answer) -> bool:
        script = self.script
        self.stats.requests += 1
        if script["record"]:
            with open(script["record"], "a") as record:
                record.write(json.dumps(echo(request)) + "\n")
        if self.stats.requests <= script["drop_requests"]:
            return False
        if script["die"].get("on_request") and concerns(script["die"], request):
            die(script["die"])
        if script["hang"] and concerns(script["hang"], request):
            hang(script["hang"])
        if script["eat"] and concerns(script["eat"], request):
            threading.Thread(target=eat, args=(script["eat"]["mib_per_second"],), daemon=True).start()
            await asyncio.sleep(600)
        try:
            await answer.pause(script["delay"])
            if script["status"] is not None:
                await answer.json(script["status"], script["body"], script["headers"])
            elif script["echo"]:
                await answer.json(200, echo(request), script["headers"])
            elif script["agent"]:
                await self._answer_agent(request, answer)
            elif script["shape"] and request.path.partition("?")[0] == "/v1/chat/completions":
                await self._answer_in_shape(request, answer)
            elif request.json().get("stream"):
                await self._stream(request, answer)
            elif script["record"] and (form := FORMS.get(request.path.partition("?")[0])) is not None:
                await answer.json(200, form, script["headers"])
            else:
                await answer.json(200, self._whole(request), script["headers"])
        except (ClientLeftError, ConnectionError):
            self.stats.cancelled += 1
            return False
        return True

    async def _stream(self, request: Request, answer: Answer) -> None:
        script, dying = self.script, self.script["die"]
        await answer.begin_stream(script["headers"])
        for number in range(script["chunks"]):
            if number:
                await answer.pause(script["interval"])
            event = sse(self._event(request, number))
            if dying.get("mid_event") == number:
                await answer.chunk(event[: len(event) // 2])
                die(dying)
            await answer.chunk(event)
            self.stats.chunks_sent += 1
            if dying.get("after_chunks") == number + 1:
                die(dying)
        asked = (request.json().get("stream_options") or {}).get("include_usage", False)
        if script["usage"] is True or (script["usage"] == "asked" and asked):
            await answer.chunk(sse(self._head(request, ".chunk") | {"choices": [], "usage": self._usage()}))
        await answer.chunk(b"data: [DONE]\n\n")
        await answer.end_stream()

    async def _answer_in_shape(self, request: Request, answer: Answer) -> None:
        import engine_shapes  # type: ignore[import-not-found]  # found beside this program, which runs by its path

        script, body = self.script, request.json()
        shape = {"model": script["model_name"], "chunks": script["chunks"], **script["shape"]}
        if not body.get("stream"):
            await answer.json(200, engine_shapes.whole(body, **shape), script["headers"])
            return
        await answer.begin_stream(script["headers"])
        for event in engine_shapes.events(body, **shape):
            await answer.chunk(event)
            self.stats.chunks_sent += 1
            await answer.pause(script["interval"])
        await answer.end_stream()

    async def _answer_agent(self, request: Request, answer: Answer) -> None:
        import agent_turns  # type: ignore[import-not-found]  # found beside this program, which runs by its path

        path = request.path.partition("?")[0]
        if path.endswith("/count_tokens"):
            await answer.json(200, {"input_tokens": 7})
            return
        body, model = request.json(), self.script["model_name"]
        turn = agent_turns.next_turn(body, **self.script["agent"])
        if not body.get("stream"):
            await answer.json(200, agent_turns.whole(path, turn, model))
            return
        await answer.begin_stream({})
        for event in agent_turns.events(path, turn, model):
            await answer.chunk(event)
        await answer.end_stream()

    def _head(self, request: Request, suffix: str) -> dict[str, Any]:
        chat = request.path.endswith("/chat/completions")
        kind = f"chat.completion{suffix}" if chat else "text_completion"
        return {"id": "fake-1", "object": kind, "created": 0, "model": self.script["model_name"]}

    def _event(self, request: Request, number: int) -> dict[str, Any]:
        text = self.script["text"]
        finish = "stop" if number == self.script["chunks"] - 1 else None
        chat = request.path.endswith("/chat/completions")
        said = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
        return self._head(request, ".chunk") | {"choices": [{"index": 0, **said, "finish_reason": finish}]}

    def _whole(self, request: Request) -> dict[str, Any]:
        text = self.script["text"] * self.script["chunks"]
        chat = request.path.endswith("/chat/completions")
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        choice = {"index": 0, **said, "finish_reason": "stop"}
        return self._head(request, "") | {"choices": [choice], "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        chunks = self.script["chunks"]
        return {"prompt_tokens": 7, "completion_tokens": chunks, "total_tokens": 7 + chunks}


@dataclass(frozen=True)
class Answer:
    """The way back to one client. Every method raises ClientLeftError or ConnectionError if it is gone."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        """A whole answer."""
        body = json.dumps(value).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})})
        self.writer.write(body)
        await self.writer.drain()

    async def begin_stream(self, headers: dict[str, str]) -> None:
        """The head of a chunked event stream."""
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **headers})
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """One HTTP chunk."""
        if self.reader.at_eof():
            raise ClientLeftError
        self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self.writer.drain()

    async def end_stream(self) -> None:
        """The last, empty chunk."""
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def pause(self, seconds: float) -> None:
        """Wait, and notice within 20 ms that the client left."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.reader.at_eof():
                raise ClientLeftError
            await asyncio.sleep(min(left, 0.02))

    def _head(self, status: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} Fake", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode())


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection, or None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head[0].split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if headers.get("transfer-encoding") == "chunked":
        return Request(method, path, headers, await _read_chunked(reader))
    return Request(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return bytes(body)


def sse(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def echo(request: Request) -> dict[str, Any]:
    """The request, as JSON."""
    return {
        "method": request.method,
        "path": request.path,
        "headers": request.headers,
        "body": request.body.decode("utf-8", "replace"),
        "body_base64": base64.b64encode(request.body).decode(),
    }


def concerns(what: dict[str, Any], request: Request) -> bool:
    """Whether this misbehaviour is meant for this request."""
    return str(what.get("on", "")).encode() in request.body


def hang(how: dict[str, Any]) -> None:
    """Answer nothing any more."""
    while True:
        if how["how"] == "sleep":
            time.sleep(1)


def eat(mib_per_second: int) -> None:
    """Take memory until somebody stops it."""
    taken = []
    while True:
        taken.append(b"x" * (mib_per_second << 20 >> 4))
        time.sleep(1 / 16)


def die(how: dict[str, Any]) -> None:
    """End this process at once, as `how` says."""
    if name := how.get("signal"):
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(60)
    os._exit(how.get("code", 1))


def main() -> None:
    """Read the command line, misbehave as told, serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--script", default="{}")
    arguments = parser.parse_args()
    given = json.loads(arguments.script)
    if unknown := given.keys() - DEFAULTS.keys():
        parser.error(f"unknown script options: {sorted(unknown)}")
    script = DEFAULTS | given

    if script["ignore_sigterm"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if script["leave_file"]:
        print(f"left {tempfile.mkstemp()[1]}", flush=True)
    if script["shared_memory"]:
        shared = SharedMemory(create=True, size=1)
        print(f"shared /dev/shm/{shared.name}", flush=True)
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    for number in range(script["children"] + script["detached_children"]):
        child = subprocess.Popen(sleeper, start_new_session=number >= script["children"])
        print(f"child {child.pid}", flush=True)
    for number in range(script["print_lines"]):
        print(script["line"].format(n=number))
    sys.stdout.flush()
    asyncio.run(run(Engine(script, os.environ.get("FAKE_ENGINE_KEY", "")), arguments.port))


async def run(engine: Engine, port: int) -> None:
    """Serve, and die when the script says so."""
    dying = engine.script["die"]
    if dying.get("at_start"):
        die(dying)
    if (seconds := dying.get("after_seconds")) is not None:
        asyncio.get_running_loop().call_later(seconds, die, dying)
    await engine.serve(port)


if __name__ == "__main__":
    main()
