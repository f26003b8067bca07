"""A follower of the server that reads nothing for a time keeps its connection, and learns that changes are lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send

from tests.gateway.harness import HandMadeRouter, gateway_of, listening
from tests.support.polling import until_async
from xinference.api.routes.watch import FollowerResponse
from xinference.config import Settings
from xinference.control.stop_notice import StopNotice
from xinference.control.watch.rows import Reading, Row
from xinference.control.watch.viewer import Viewer
from xinference.control.watch.watch import Watch
from xinference.gateway import app
from xinference.gateway.http.connection_limits import ConnectionLimits

#: Bytes of one change: a few fill the buffers of the connection, and some more what the server keeps.
SIZE = 400_000
WRITE_SECONDS = 0.2


class Large:
    """A source whose one row is large, and if it changes, another one in each reading."""

    topic, seconds, is_list = "models", 0.01, True

    def __init__(self) -> None:
        self.number = 0
        self.changes = False

    async def read(self) -> Reading:
        self.number += self.changes
        return Reading((Row("m", "model", json.dumps([self.number, "x" * SIZE]).encode()),))


class Following:
    """The management API of the test: only the stream of changes."""

    def __init__(self) -> None:
        self.source = Large()
        self.watch = Watch([self.source], StopNotice())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self.watch.follow(("models",), lambda: Viewer(None))
        await FollowerResponse(stream, media_type="text/event-stream")(scope, receive, send)


async def lost_connection(pause: float | None, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, list[str]]:
    """Whether a follower that pauses loses its connection, and the events that it reads then."""
    monkeypatch.setattr(app, "READ_PAUSES", {} if pause is None else {"/v1/watch": pause})
    following = Following()
    async with (
        gateway_of(HandMadeRouter(), following, write_seconds=WRITE_SECONDS) as gateway,
        listening(gateway, limits=ConnectionLimits.of(Settings(write_seconds=WRITE_SECONDS))) as (_, _, url),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=2 * SIZE)
        with contextlib.closing(writer):
            writer.write(b"GET /v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"event: snapshot")
            cast(Any, writer.transport).pause_reading()
            watch = following.watch
            if pause is None:
                following.source.changes = True
                await until_async("the server has ended the stream", lambda: not watch.followers)
                return True, []
            # More changes than the server keeps, and a time in which another client would lose its connection.
            following.source.changes, begun = True, asyncio.get_running_loop().time()
            await until_async("changes are lost", lambda: following.source.number > 60)
            await until_async("time has passed", lambda: asyncio.get_running_loop().time() > begun + 10 * WRITE_SECONDS)
            following.source.changes = False
            assert watch.followers == 1
            assert watch.changes._bytes < 5 * 1024 * 1024, "the server keeps no more for it"
            cast(Any, writer.transport).resume_reading()
            events: list[str] = []
            newest = b"[%d, " % following.source.number
            async with asyncio.timeout(60):
                while True:
                    line = await reader.readuntil(b"\n")
                    if line.startswith(b"event: "):
                        events.append(line[7:-1].decode())
                    elif newest in line:
                        return False, events


@pytest.mark.process
async def test_a_follower_that_reads_again_gets_resync_and_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    lost, events = await lost_connection(600.0, monkeypatch)
    assert not lost and "resync" in events
    after = events[events.index("resync") + 1 :]
    assert after[0] == "snapshot" and set(after[1:]) <= {"model", "resync", "snapshot"}


@pytest.mark.process
async def test_without_a_longer_pause_its_connection_would_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await lost_connection(None, monkeypatch))[0]
