"""The memory of a server with followers of /v1/watch that never read, under load: `python -m benchmarks.watch`.

A server with a home of its own gets requests that it refuses; each of them leaves a record. Several clients
follow it and stop reading after the snapshot. At the end, one of them reads again and must find `resync`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port

_RESYNC = b"event: resync"
_BODY = {"model": "none", "messages": [{"role": "user", "content": "x"}], "stream": True}


def open_follower(port: int) -> socket.socket:
    """A follower with a small buffer, which has read the snapshot and reads no more."""
    follower = socket.socket()
    follower.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    follower.connect(("127.0.0.1", port))
    follower.sendall(b"GET /v1/watch HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    received = b""
    while b"event: snapshot" not in received:
        received += follower.recv(4096)
    return follower


def read_on(follower: socket.socket, seconds: float) -> str:
    """What a follower finds that reads again for some seconds: `resync`, or all that was sent, if the kernel had it."""
    follower.settimeout(seconds)
    end, read, rest = time.monotonic() + seconds, 0, b""
    with suppress(TimeoutError, ConnectionResetError):
        while time.monotonic() < end:
            piece = follower.recv(1 << 16)
            if not piece:
                return f"NO, the server has closed the connection after {read / 2**20:.1f} MiB"
            read += len(piece)
            if _RESYNC in rest + piece:
                return f"found after {read / 2**20:.1f} MiB"
            rest = piece[-len(_RESYNC) :]
    return f"none in {read / 2**20:.1f} MiB; if the kernel's buffers hold so much, nothing was left out: send more"


async def send_requests(client: httpx2.AsyncClient, end: float) -> int:
    """Send requests one after another until a time; returns their number."""
    number = 0
    while time.monotonic() < end:
        await client.post("/v1/chat/completions", json=_BODY)
        number += 1
    return number


async def measure(process: psutil.Process, end: float, interval: float) -> list[tuple[float, float]]:
    """Seconds and MiB of the server's resident memory until a time."""
    begun, samples = time.monotonic(), []
    while time.monotonic() < end:
        samples.append((time.monotonic() - begun, process.memory_info().rss / 2**20))
        print(f"{samples[-1][0]:6.0f} s {samples[-1][1]:8.1f} MiB", flush=True)
        await asyncio.sleep(interval)
    return samples


async def run(seconds: float, followers: int, clients: int, workers: int) -> None:
    """Measure one server and print the result."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        ours = {"XINFERENCE_HOME": home, "XINFERENCE_GATEWAY_WORKERS": str(workers), "XINFERENCE_LOG_LEVEL": "error"}
        with (Path(home) / "server.log").open("wb") as log:
            server = subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs in this loop yet
                [sys.executable, "-m", "xinference.server", "--port", str(port)],
                env={**os.environ, **ours},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await _wait(client)
                opened = [await asyncio.to_thread(open_follower, port) for _ in range(followers)]
                end = time.monotonic() + seconds
                sending = [asyncio.create_task(send_requests(client, end)) for _ in range(clients)]
                samples = await measure(psutil.Process(server.pid), end, max(1.0, seconds / 40))
                number = sum(await asyncio.gather(*sending))
                resync = await asyncio.to_thread(read_on, opened[0], 60.0)
        finally:
            server.terminate()
            server.wait()
    quarter = max(1, len(samples) // 4)
    second = [mib for _, mib in samples[quarter : 2 * quarter]] or [samples[0][1]]
    last = [mib for _, mib in samples[-quarter:]]
    print(f"{number} requests, {followers} followers that never read, {workers} gateway process(es)")
    print(f"memory: {sum(second) / len(second):.1f} MiB in the second quarter, {sum(last) / len(last):.1f} in the last")
    print(f"resync after the pause: {resync}")


async def _wait(client: httpx2.AsyncClient) -> None:
    for _ in range(600):
        try:
            if (await client.get("/health")).status_code == 200:
                return
        except httpx2.TransportError:
            await asyncio.sleep(0.1)
    raise SystemExit("the server does not answer")


def main() -> None:
    """Entry point of ``python -m benchmarks.watch``."""
    parser = argparse.ArgumentParser(prog="benchmarks.watch", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--followers", type=int, default=16)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--gateway-workers", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, arguments.followers, arguments.clients, arguments.gateway_workers))


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
