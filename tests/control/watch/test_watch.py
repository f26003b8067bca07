"""The stream of a follower: a snapshot, changes, resuming, and what a slow follower gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest

from xinference.control.stop_notice import StopNotice
from xinference.control.watch import watch as module
from xinference.control.watch.rows import Reading, Row
from xinference.control.watch.viewer import Viewer
from xinference.control.watch.watch import Watch
from xinference.deployments.counts import Counts
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.key import Key

Event = tuple[str, str | None, Any]


class Models:
    """A source whose rows a test sets."""

    topic, seconds, is_list = "models", 0.0, True

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}
        self.reads = 0
        self.failing = False

    async def read(self) -> Reading:
        self.reads += 1
        if self.failing:
            raise OSError("this machine cannot be read")
        await asyncio.sleep(0)
        return Reading(
            tuple(
                Row(
                    uid,
                    "model",
                    json.dumps([uid, state]).encode(),
                    uid,
                    gone=("model_removed", b'["%b"]' % uid.encode()),
                )
                for uid, state in self.rows.items()
            )
        )


def parse(piece: bytes) -> list[Event]:
    """The events of a piece: name, id, data."""
    events = []
    for block in piece.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return events


class Follower:
    """Reads one stream, event by event."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self._events: list[Event] = []

    async def next(self) -> Event:
        async with asyncio.timeout(30):
            while not self._events:
                self._events += parse(await anext(self.stream))
        return self._events.pop(0)

    async def close(self) -> None:
        await cast(Any, self.stream).aclose()


ALL = Viewer(None)


def follower(watch: Watch, viewer: Viewer | None = ALL, last_id: str | None = None, *topics: str) -> Follower:
    return Follower(watch.follow(topics or ("models",), lambda: viewer, last_id))


async def test_a_snapshot_comes_first_and_then_what_changes() -> None:
    source = Models()
    source.rows = {"a": "loading", "b": "ready"}
    watch = Watch([source], StopNotice(), now=lambda: 5.0)
    reader = follower(watch)
    name, _, data = await reader.next()
    assert name == "snapshot" and data["models"] == [["a", "loading"], ["b", "ready"]]
    assert (data["node"], data["time"], data["topics"]) == ("local", 5.0, ["models"])
    source.rows = {"a": "ready", "c": "loading"}
    assert [(await reader.next())[::2] for _ in range(3)] == [
        ("model_removed", ["b"]),
        ("model", ["a", "ready"]),
        ("model", ["c", "loading"]),
    ]
    await reader.close()


async def test_nothing_is_read_without_a_follower() -> None:
    source = Models()
    watch = Watch([source], StopNotice())
    await asyncio.sleep(0)
    assert source.reads == 0
    reader = follower(watch)
    await reader.next()
    assert watch.followers == 1
    await reader.close()
    assert watch.followers == 0
    await asyncio.sleep(0)
    reads = source.reads
    for _ in range(5):
        await asyncio.sleep(0)
    assert source.reads == reads


async def test_a_stream_goes_on_after_the_last_id() -> None:
    source = Models()
    source.rows = {"a": "loading"}
    watch = Watch([source], StopNotice())
    first = follower(watch)
    _, last, _ = await first.next()
    await first.close()
    source.rows = {"a": "ready"}  # nobody follows meanwhile
    second = follower(watch, ALL, last)
    assert (await second.next())[::2] == ("model", ["a", "ready"])
    await second.close()


@pytest.mark.parametrize("last", ["x", "", "00000000-1"])
async def test_an_unknown_id_gets_resync_and_a_snapshot(last: str) -> None:
    watch = Watch([Models()], StopNotice())
    reader = follower(watch, ALL, last)
    assert [(await reader.next())[0] for _ in range(2)] == ["resync", "snapshot"]
    await reader.close()


async def test_a_follower_that_is_too_slow_gets_resync_and_a_snapshot() -> None:
    source, counts = Models(), Counts()
    watch = Watch([source], StopNotice(), counts=counts)
    slow, quick = follower(watch), follower(watch)
    await slow.next()
    await quick.next()
    for n in range(5000):
        watch.changes.add("models", "model", b'["a", %d]' % n, "a")
    assert (await quick.next())[2]["reason"] == "slow"
    assert (await quick.next())[0] == "snapshot"
    source.rows = {"a": "last"}
    assert (await quick.next())[::2] == ("model", ["a", "last"])
    name, identity, data = await slow.next()
    assert (name, identity, data["reason"]) == ("resync", None, "slow")
    name, _, data = await slow.next()
    assert name == "snapshot" and data["models"] == [["a", "last"]]
    assert (counts.followers, counts.lost_changes) == (2, 2)
    await slow.close()
    await quick.close()
    assert counts.followers == 0


async def test_a_key_gets_its_own_models_only_and_its_changes_apply_at_once() -> None:
    source = Models()
    source.rows = {"a": "ready", "b": "ready"}
    watch = Watch([source], StopNotice())
    holder: Viewer | None = Viewer(Key("k", "k", b"", frozenset(("use",)), models=frozenset("a")))
    reader = Follower(watch.follow(("models", "requests"), lambda: holder))
    assert (await reader.next())[2]["models"] == [["a", "ready"]]
    source.rows = {"b": "gone", "a": "busy"}
    assert (await reader.next())[2] == ["a", "busy"]
    watch.changes.add("requests", "ended", b'"of another key"', None, "other")
    watch.changes.add("stats", "stats", b'"of a topic that is not followed"')
    watch.changes.add("requests", "ended", b'"own"', None, "k")
    assert (await reader.next())[2] == "own"
    holder = None  # the key is revoked
    watch.changes.add("requests", "ended", b'"own"', None, "k")
    name, _, data = await reader.next()
    assert (name, data["reason"]) == ("end", "key")
    await reader.close()


async def test_the_stream_ends_when_the_server_stops() -> None:
    notice = StopNotice()
    watch = Watch([Models()], notice)
    reader = follower(watch)
    await reader.next()
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    notice.give()
    name, _, data = await waiting
    assert (name, data["reason"]) == ("end", "stopping")
    await reader.close()


async def test_a_topic_that_cannot_be_read_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    source = Models()
    source.failing = True
    watch = Watch([source], StopNotice())
    reader = follower(watch)
    assert (await reader.next())[2]["models"] == []
    source.failing, source.rows = False, {"a": "ready"}
    assert (await reader.next())[2] == ["a", "ready"]
    await reader.close()


async def test_a_quiet_stream_has_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.0)
    async with aclosing(cast(Any, Watch([Models()], StopNotice()).follow(("models",), lambda: ALL))) as stream:
        await anext(stream)
        await anext(stream)
        assert (await anext(stream)).startswith(b":")


async def test_the_number_of_followers_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FOLLOWERS", 3)
    monkeypatch.setattr(module, "MAX_OF_KEY", 2)
    watch = Watch([Models()], StopNotice())
    one = Viewer(Key("one", "one", b"", frozenset(("use",))))
    two = Viewer(Key("two", "two", b"", frozenset(("use",))))
    readers = []
    for viewer in (one, one, two):
        watch.check_room(viewer)
        readers.append(follower(watch, viewer))
        await readers[-1].next()
        if viewer is not two and len(readers) == 2:
            with pytest.raises(Problem, match="for one key") as raised:
                watch.check_room(one)
            assert raised.value.code == Code.TOO_MANY_FOLLOWERS
    with pytest.raises(Problem, match="for a server"):
        watch.check_room(two)
    await readers[0].close()
    watch.check_room(two)
    for reader in readers[1:]:
        await reader.close()
