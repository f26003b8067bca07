"""Cost of wrong keys: refused requests, compared with the look-ups in them, in one run.

``python -m benchmarks.keys`` sends 100,000 different wrong keys to the gateway in process, and looks 100,000
up in the same table. The rest of a refusal costs the same as any answer; the shortest one, that of
``GET /health``, is measured for comparison.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
import tracemalloc

from tests.support.end_signals import end_as_ctrl_c

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.app import Gateway
from xinference.gateway.http.asgi import Message, Receive, Scope, Send
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.keys.table import table_of
from xinference.routing.table import Route, RoutingTable

WRONG = 100_000
KEYS = 1000


class SomeKeys:
    """A table of many keys."""

    def __init__(self) -> None:
        keys = (Key(f"k{n}", f"k{n}", digest(b"%d" % n), frozenset({"use"})) for n in range(KEYS))
        self.table = table_of(keys, required=True)

    def used(self, key: Key, now: float) -> None:
        raise AssertionError("a wrong key was right")


class NoModels:
    """A router without a model."""

    table = RoutingTable()

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        raise Problem(Code.MODEL_NOT_FOUND, f"{uid} is not here.")


async def management(scope: Scope, receive: Receive, send: Send) -> None:
    """Is never called."""
    raise AssertionError(scope["path"])


async def receive() -> Message:
    """Is never called: a wrong key is refused before its body is read."""
    raise AssertionError("the body was read")


def scope_with(secret: bytes, method: str, path: str) -> Scope:
    """A request of a client with this key."""
    headers = [(b"host", b"127.0.0.1:9997"), (b"authorization", b"Bearer " + secret)]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}


async def answers(gateway: Gateway, secrets: list[bytes], method: str, path: str, expected: int) -> float:
    """CPU seconds of one answer for each key."""
    statuses: set[int] = set()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    start = time.process_time()
    for secret in secrets:
        await gateway(scope_with(secret, method, path), receive, send)
    spent = time.process_time() - start
    assert statuses == {expected}
    return spent


async def measure() -> dict[str, float]:
    """CPU time of each part, and the bytes that are still allocated after the refusals."""
    keys = SomeKeys()
    gateway = Gateway(NoModels(), Settings(), management, keys)
    secrets = [b"sk-xinf-%032d" % number for number in range(WRONG)]
    chat = ("POST", "/v1/chat/completions", 401)
    await answers(gateway, secrets[:1000], *chat)
    start = time.process_time()
    assert not any(keys.table.find(secret) for secret in secrets)
    looked_up = time.process_time() - start
    refused = await answers(gateway, secrets, *chat)
    healthy = await answers(gateway, secrets, "GET", "/health", 200)
    tracemalloc.start()
    await answers(gateway, secrets[:10_000], *chat)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await gateway.close()
    return {
        "look_ups_s": looked_up,
        "refusals_s": refused,
        "look_up_us": looked_up / WRONG * 1e6,
        "refusal_us": refused / WRONG * 1e6,
        "health_us": healthy / WRONG * 1e6,
        "bytes_held_after_10000": held,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    end_as_ctrl_c()
    print(json.dumps(asyncio.run(measure()), indent=2))
