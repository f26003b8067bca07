"""Requests that go on while nodes are killed: each has to end by an answer or a typed error, and soon after a loss."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import inf

import httpx2

from tests.chaos.clients import EXPECTED, UIDS

#: Time that an answer of the scripted engines takes, and that a request may wait for a model that recovers, in seconds.
WORK_SECONDS = 2.5
RECOVER_SECONDS = 3.0
#: A request is told of a loss within so many seconds.
TOLD_SECONDS = 8.0
#: More for a machine that is busy with other work. Without the keepalive of the links, nobody is told for 34 s.
SLACK_SECONDS = 8.0
#: Interval between two requests.
INTERVAL = 0.4
#: Statuses that a request may have beside those of one machine: a node did not answer in time.
NODE_STATUSES = EXPECTED | {504}


@dataclass
class Faults:
    """What has happened, by the clock of `time.monotonic`."""

    times: list[float] = field(default_factory=list)
    """Each beginning and each end of a fault."""
    server: list[tuple[float, float]] = field(default_factory=list)
    """The times in which the supervisor did not answer."""

    def note(self) -> None:
        """A fault begins or ends now."""
        self.times.append(time.monotonic())

    @contextmanager
    def without_server(self) -> Iterator[None]:
        """The supervisor does not answer while the block runs."""
        self.note()
        self.server.append((time.monotonic(), inf))
        try:
            yield
        finally:
            self.server[-1] = (self.server[-1][0], time.monotonic())

    def spares(self, began: float, ended: float) -> bool:
        """Whether the supervisor answered all the time."""
        return not any(first < ended and began < last for first, last in self.server)

    def told_after(self, began: float, ended: float) -> float:
        """Seconds until the end of a request after the last thing that it may have waited for."""
        return ended - max([began, *(each for each in self.times if each <= ended)])


class Traffic:
    """Sends requests to all models in turn, whole answers and streams, until `end`."""

    def __init__(self, url: str, faults: Faults) -> None:
        self._url = url
        self._faults = faults
        self._pool = ThreadPoolExecutor(64)
        self._ending = threading.Event()
        self._requests: list[Future[str | None]] = []
        self.slowest = 0.0
        """The longest time between a loss and the end of a request, with the time of its answer, in seconds."""
        self.sent = 0

    def begin(self) -> None:
        """Send requests from now on."""
        self._ending.clear()
        self._sender = threading.Thread(target=self._send)
        self._sender.start()

    def end(self) -> list[str]:
        """Send no more, and wait for all ends; returns what was wrong."""
        self._ending.set()
        self._sender.join()
        found = [each.result() for each in self._requests]
        self._requests.clear()
        return [each for each in found if each is not None]

    def close(self) -> None:
        self._pool.shutdown()

    def _send(self) -> None:
        for number in count():
            uid, is_stream = UIDS[number % len(UIDS)], number % 3 == 0
            self._requests.append(self._pool.submit(self._request, uid, is_stream))
            self.sent += 1
            if self._ending.wait(INTERVAL):
                return

    def _request(self, uid: str, is_stream: bool) -> str | None:
        """One request; returns what was wrong."""
        body = {"model": uid, "messages": [{"role": "user", "content": "hello"}], "stream": is_stream}
        began = time.monotonic()
        try:
            answer = httpx2.post(f"{self._url}/v1/chat/completions", json=body, timeout=120)
            wrong = _wrong(answer, is_stream)
        except httpx2.TransportError as error:
            wrong = f"{error!r}" if self._faults.spares(began, time.monotonic()) else None
        ended = time.monotonic()
        told = self._faults.told_after(began, ended)
        self.slowest = max(self.slowest, told)
        if told > TOLD_SECONDS + WORK_SECONDS + RECOVER_SECONDS + SLACK_SECONDS:
            wrong = f"it ended {told:.1f} s after the last loss, after {ended - began:.1f} s; {wrong}"
        return None if wrong is None else f"a request to {uid}, stream {is_stream}: {wrong}"


def _wrong(answer: httpx2.Response, is_stream: bool) -> str | None:
    """What is wrong with an answer."""
    text = answer.text
    if answer.status_code not in NODE_STATUSES or "internal_error" in text:
        return f"{answer.status_code} {text}"
    if answer.status_code != 200:
        return None if json.loads(text).get("error") else f"{answer.status_code} {text}"
    if is_stream and "data: [DONE]" not in text and '"error"' not in text:
        return f"a stream without its end: {text[-300:]}"
    return None
