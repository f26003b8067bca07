"""What readers of the figures cost the data path: processor time of the server for the same streams, with and without.

    python -m benchmarks.watchers [--readers watch|stats|pages] [--workers 2]

A server with a fake engine answers the same streams in each round, alone and with 8 followers of `/v1/watch` and 2
followers of a model's log; the order changes from round to round. In their place, `--readers stats` has 8 readers that
ask for `/v1/stats` every 2 s, and `--readers pages` 8 open pages in Chromium, each of a browser of its own, so that no
page shares the stream of another one (it needs what `make test-ui` installs). `--metrics` adds a reader of `/metrics`
and `/metrics/engines` each second. The figure is the processor time of all the server's processes, as a multiple of
that without readers.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import psutil
from tests.formats.gguf_model import write_gguf
from tests.support.end_signals import end_as_ctrl_c
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HF = Path(__file__).parents[1] / "tests" / "assets" / "tiny-llama2-chat-hf"
STREAMS, CHUNKS = 16, 1000
#: Seconds between two events of a stream: a round takes some seconds, so that each reader reads several times.
INTERVAL = 0.002
POLL_SECONDS = 2.0


def stream(port: int) -> int:
    """One stream; returns its bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse().read()
    assert answer.endswith(b"data: [DONE]\n\n"), answer[-200:]
    return len(answer)


def cpu_seconds(server: psutil.Process) -> float:
    """Processor time of the server's processes, without the engines."""
    processes = [server, *(each for each in server.children() if "worker" in " ".join(each.cmdline()))]
    return sum(time.clock_gettime(_clock(each.pid)) for each in processes)


def _clock(pid: int) -> int:
    """Linux's clock of the processor time of a process, in nanoseconds; /proc has it in steps of 10 ms."""
    return (~pid << 3) | 2


#: What the open pages show, in turns.
SHOWN = ("", "running", "running/m", "running/m/logs", "activity", "machine", "chat", "running/m/requests")


@contextmanager
def pages(browser: Browser, port: int, count: int) -> Iterator[None]:
    """Open pages, while the block runs."""
    contexts = []
    for n in range(count):
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        page.goto(f"http://127.0.0.1:{port}/ui/#/{SHOWN[n % len(SHOWN)]}")
        page.locator("main h1").wait_for(timeout=60_000)
    time.sleep(1.0)
    try:
        yield
    finally:
        for context in contexts:
            context.close()


@contextmanager
def chromium(is_needed: bool) -> Iterator[Browser | None]:
    if not is_needed:
        yield None
        return
    from playwright.sync_api import sync_playwright
    from tests.ui.conftest import ARGUMENTS

    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def readers(port: int, arguments: argparse.Namespace) -> Iterator[None]:
    """All readers, while the block runs."""
    ended = threading.Event()

    def poll(paths: tuple[str, ...], seconds: float) -> None:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            while not ended.wait(seconds):
                for path in paths:
                    client.get(path)

    def follow(path: str) -> None:
        """Read a stream, which has no end, until the end of the block."""
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            while not ended.is_set():
                with suppress(TimeoutError):
                    assert connection.recv(1 << 16), f"{path} has ended"

    def reader(read: Callable[..., None], *arguments: object) -> threading.Thread:
        return threading.Thread(target=read, args=arguments)

    if arguments.readers == "watch":
        threads = [reader(follow, "/v1/watch") for _ in range(arguments.watchers)]
    else:
        threads = [reader(poll, ("/v1/stats",), POLL_SECONDS) for _ in range(arguments.watchers)]
    threads += [reader(follow, "/v1/models/m/logs?follow=true") for _ in range(arguments.log_followers)]
    if arguments.metrics:
        threads.append(reader(poll, ("/metrics", "/metrics/engines"), 1.0))
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def round_of(port: int, server: psutil.Process) -> float:
    """Processor time for all streams of a round."""
    before = cpu_seconds(server)
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(stream, [port] * STREAMS))
    return cpu_seconds(server) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--watchers", type=int, default=8)
    parser.add_argument("--log-followers", type=int, default=2)
    parser.add_argument("--readers", choices=("watch", "stats", "pages"), default="watch")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--metrics", action="store_true")
    arguments = parser.parse_args()
    alone: list[float] = []
    watched: list[float] = []
    with tempfile.TemporaryDirectory(prefix="xi-") as folder, chromium(arguments.readers == "pages") as browser:
        weights = write_gguf(HF, "Q8_0", Path(folder) / "tiny.gguf")
        env = {"XINFERENCE_GATEWAY_WORKERS": str(arguments.workers)}
        home = ScriptedHome(Path(folder) / "home", free_port(), env, weights)
        home.path.mkdir()
        try:
            server = psutil.Process(home.start().pid)
            script = {"chunks": CHUNKS, "interval": INTERVAL}
            assert home.post_launch("m", script=script, lanes=STREAMS).status_code == 200
            round_of(home.port, server)
            for number in range(arguments.rounds):
                for is_watched in (False, True) if number % 2 else (True, False):
                    if is_watched:
                        opened = (
                            pages(browser, home.port, arguments.watchers) if browser else readers(home.port, arguments)
                        )
                        with opened:
                            watched.append(round_of(home.port, server))
                    else:
                        alone.append(round_of(home.port, server))
        finally:
            home.clean_up()
    chunks = STREAMS * CHUNKS
    print(f"alone: {statistics.median(alone) / chunks * 1e6:.1f} us of processor time a chunk ({chunks} a round)")
    print(f"with readers: {statistics.median(watched) / chunks * 1e6:.1f} us")
    ratio = statistics.median(w / a for w, a in zip(watched, alone, strict=True))
    print(" ".join(f"{w / a:.3f}" for w, a in zip(watched, alone, strict=True)))
    print(f"ratio: {ratio:.3f} (median of {arguments.rounds} rounds)")


if __name__ == "__main__":
    end_as_ctrl_c()
    main()
