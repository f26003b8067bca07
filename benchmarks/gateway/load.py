"""A load generator in its own process, with raw protocols and prepared requests, so that its cost is small.

``python -m benchmarks.gateway.load`` reads a `Load` as JSON from stdin and writes a `Result` as JSON to stdout. Every
connection sends its next request as soon as the last one is answered, until all requests are sent.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from benchmarks.gateway import meters

END = b"0\r\n\r\n"
DONE = b"data: [DONE]"
#: Maximum duration of an answer, in seconds.
PATIENCE = 120.0


@dataclass(frozen=True)
class Load:
    """The requests to send, and the processes whose CPU time to read."""

    port: int
    connections: int
    requests: int
    stream: bool = True
    tokens: int = 256
    rate: float = 0.0
    """Events a second for each stream; 0: no limit."""
    pause: float = 0.0
    """Pause of each connection between two requests, in seconds."""
    model: str = "costless"
    key: str = "none"
    prompt: str = "Tell me a story."
    extra: dict[str, object] = field(default_factory=dict)
    """Additional fields of the request's body."""
    pids: dict[str, int] = field(default_factory=dict)
    exact: bool = True
    """Whether an answer with another number of events than `tokens` is an error."""


@dataclass
class Result:
    """The result of one run. Times are in seconds, memory in bytes."""

    seconds: float = 0.0
    requests: int = 0
    events: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    first_p50: float = 0.0
    """From the last byte of the request to the first event, or to the whole answer."""
    first_p99: float = 0.0
    gap_p50: float = 0.0
    """Between two reads of one stream."""
    gap_p99: float = 0.0
    load_cpu: float = 0.0
    """CPU time of the load generator."""
    stolen: float = 0.0
    """Time of all cores that the host gave to other machines."""
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU time of the processes in `Load.pids`."""
    memory: dict[str, int] = field(default_factory=dict)
    """Growth of their resident memory from before the first connection to the time with all connections active."""


class Run:
    """The state that all connections share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.left = load.requests
        self.active = load.connections
        self.result = Result()
        self.firsts = array("d")
        self.gaps = array("d")
        self.over = asyncio.get_running_loop().create_future()
        body: dict[str, object] = {"model": load.model, "stream": load.stream, "max_tokens": load.tokens}
        body |= {"messages": [{"role": "user", "content": load.prompt}], **load.extra}
        if load.rate:
            body["user"] = f"{load.rate:g}"  # a field that each server passes on
        data = json.dumps(body).encode()
        lines = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {load.key}\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        self.request = lines.encode() + data

    def fail(self, kind: str) -> None:
        self.result.errors[kind] = self.result.errors.get(kind, 0) + 1

    def leave(self) -> None:
        self.active -= 1
        if not self.active and not self.over.done():
            self.over.set_result(None)


class Connection(asyncio.Protocol):
    """Sends requests one after the other and counts the answers."""

    __slots__ = (
        "_again",
        "_events",
        "_finished",
        "_head",
        "_last",
        "_lost",
        "_resting",
        "_run",
        "_sent",
        "_size",
        "_tail",
        "_transport",
    )

    def __init__(self, run: Run) -> None:
        self._run = run
        self._again: asyncio.Task[object] | None = None
        self._transport: asyncio.Transport | None = None
        self._finished = self._resting = self._lost = False
        self._reset()

    def _reset(self) -> None:
        self._sent = self._last = 0.0
        self._events = 0
        self._size = -1
        self._head = b""
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lost = False
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def send(self) -> None:
        """Send the next request, or close if all are sent."""
        assert self._transport is not None
        run = self._run
        self._reset()
        if not run.left:
            self._finished = True
            self._transport.close()
            run.leave()
            return
        run.left -= 1
        if run.load.pause:
            self._resting = True
            asyncio.get_running_loop().call_later(run.load.pause, self._go)
        else:
            self._go()

    def _go(self) -> None:
        assert self._transport is not None
        self._resting = False
        if self._lost:
            self._again = asyncio.get_running_loop().create_task(self._ask_again())
        elif not self._transport.is_closing():
            self._write()

    def _write(self) -> None:
        assert self._transport is not None
        self._transport.write(self._run.request)
        self._sent = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self._size < 0:
            data = self._head + data
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._head = head
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._run.fail(head[9:12].decode())
                self._stop()
                return
            at = head.lower().find(b"content-length:")
            self._size = int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else 0
        self._stream(data, now) if self._run.load.stream else self._whole(data, now)

    def _whole(self, data: bytes, now: float) -> None:
        self._size -= len(data)
        if not self._size:
            self._run.firsts.append(now - self._sent)
            self._run.result.requests += 1
            self.send()

    def _stream(self, data: bytes, now: float) -> None:
        if not data:
            return
        run = self._run
        # "data: " is split across two reads only if a write was split; the tail handles that.
        seam = self._tail + data
        self._events += seam.count(b"data: ") - self._tail.count(b"data: ")
        self._tail = seam[-32:]
        if self._last:
            run.gaps.append(now - self._last)
        elif self._events:
            run.firsts.append(now - self._sent)
        self._last = now
        if seam.endswith(END):
            self._complete(seam)

    def _complete(self, seam: bytes) -> None:
        run = self._run
        events = self._events - 2  # without the finish event and [DONE]
        run.result.requests += 1
        run.result.events += events
        if DONE not in seam[-40:]:
            run.fail("no [DONE]")
        elif run.load.exact and events != run.load.tokens:
            run.fail(f"{events} events")
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._finished or self._resting:
            return
        if exc is None and self._size < 0 and not self._head and self._run.result.requests:
            # Some engines close after a stream, which is allowed. No byte of the answer has come: retry on a new one.
            self._again = asyncio.get_running_loop().create_task(self._ask_again())
            return
        self._run.fail("connection lost")
        self._stop()

    async def _ask_again(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._run.load.port)
        self._write()

    def _stop(self) -> None:
        assert self._transport is not None
        if not self._finished:
            self._finished = True
            self._transport.close()
            self._run.leave()


async def run(load: Load) -> Result:
    """Connect, wait until all connections are established, then send."""
    running = Run(load)
    loop = asyncio.get_running_loop()
    before = {name: meters.resident(pid) for name, pid in load.pids.items()}
    connections = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(lambda: Connection(running), "127.0.0.1", load.port)
        connections.append(connection)
    await asyncio.sleep(0.05)
    cpu = {name: meters.cpu_seconds(pid) for name, pid in load.pids.items()}
    own, stolen, started = meters.own_cpu(), meters.stolen(), time.perf_counter()
    for connection in connections:
        connection.send()
    result = running.result
    watcher = asyncio.create_task(_watch_memory(load, before, result))
    try:
        await asyncio.wait_for(running.over, PATIENCE)
    except TimeoutError:
        running.fail("no answer in time")
    result.seconds = time.perf_counter() - started
    result.load_cpu = meters.own_cpu() - own
    result.stolen = meters.stolen() - stolen
    result.cpu = {name: meters.cpu_seconds(pid) - cpu[name] for name, pid in load.pids.items()}
    watcher.cancel()
    result.first_p50, result.first_p99 = _percentiles(running.firsts)
    result.gap_p50, result.gap_p99 = _percentiles(running.gaps)
    return result


async def _watch_memory(load: Load, before: dict[str, int], result: Result) -> None:
    """The maximum growth of each process."""
    while True:
        for name, pid in load.pids.items():
            result.memory[name] = max(result.memory.get(name, 0), meters.resident(pid) - before[name])
        await asyncio.sleep(0.5)


def _percentiles(times: array[float]) -> tuple[float, float]:
    ordered = sorted(times)
    if not ordered:
        return 0.0, 0.0
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(run(Load(**json.load(sys.stdin)))))))
