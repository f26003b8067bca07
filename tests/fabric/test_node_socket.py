"""A worker's socket: one relay at a time, the state first, and no relay that can harm the worker."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.polling import until_async
from xinference.fabric.frames import Answer, Call, Failure, NodeEvent, Table, Tell, read_frame, to_frame
from xinference.fabric.node_socket import NodeSocket

DECODER = msgspec.msgpack.Decoder(Answer | Failure | NodeEvent)


@dataclass
class Program:
    """A node that answers at once, except to ``wait``."""

    told: list[bytes] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    waits: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, message: bytes) -> bytes:
        if message == b"wait":
            self.waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return b"answer to " + message

    def receive(self, message: bytes) -> None:
        self.told.append(message)

    def receive_table(self, table: bytes) -> None:
        self.told.append(b"table " + table)

    def state(self) -> bytes:
        return b"state"


@dataclass
class Relay:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> Answer | Failure | NodeEvent | None:
        return await read_frame(self.reader, DECODER)


@contextlib.asynccontextmanager
async def relay_to(path: Path) -> AsyncIterator[Relay]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Relay(reader, writer)
    finally:
        writer.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[tuple[NodeSocket, Program, Path]]:
    program, path = Program(), tmp_path / "w.sock"
    node = NodeSocket(path, program)
    await node.open()
    yield node, program, path
    await node.close()
    assert not path.exists()


Worker = tuple[NodeSocket, Program, Path]


async def test_only_the_owner_may_connect(worker: Worker) -> None:
    assert stat.S_IMODE(worker[2].stat().st_mode) == 0o600


async def test_the_state_comes_first_and_calls_are_answered(worker: Worker) -> None:
    node, program, path = worker
    async with relay_to(path) as relay:
        assert await relay.read() == NodeEvent("", 1, b"state")
        relay.writer.write(to_frame(Tell("", b"a")) + to_frame(Table(b"t")) + to_frame(Call(7, "", b"look", 5)))
        assert await relay.read() == Answer(7, b"answer to look")
        assert program.told == [b"a", b"table t"]
        node.send(b"event")
        assert await relay.read() == NodeEvent("", 2, b"event")


async def test_a_call_that_takes_too_long_is_ended(worker: Worker) -> None:
    _, program, path = worker
    async with relay_to(path) as relay:
        await relay.read()
        relay.writer.write(to_frame(Call(1, "", b"wait", 0.01)))
        assert await relay.read() == Failure(1, "timeout")
        assert program.cancelled.is_set()


async def test_a_new_relay_replaces_the_old_one(worker: Worker) -> None:
    _, program, path = worker
    async with relay_to(path) as old:
        await old.read()
        old.writer.write(to_frame(Call(1, "", b"wait", 3600)))
        await program.waits.wait()
        async with relay_to(path) as new:
            assert await new.read() == NodeEvent("", 1, b"state")
            assert await old.read() is None
            await program.cancelled.wait()
            new.writer.write(to_frame(Call(1, "", b"look", 5)))
            assert await new.read() == Answer(1, b"answer to look")


async def test_a_relay_that_sends_nonsense_loses_its_connection_only(worker: Worker) -> None:
    node, _, path = worker
    async with relay_to(path) as relay:
        await relay.read()
        relay.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await relay.read() is None
    await until_async("the connection is forgotten", lambda: node._connection is None)
    node.send(b"lost")
    async with relay_to(path) as relay:
        assert await relay.read() == NodeEvent("", 1, b"state")


async def test_a_relay_that_does_not_read_does_not_fill_the_memory(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _, path = worker
    monkeypatch.setattr("xinference.fabric.frames.MAX_WAITING", 100_000)
    async with relay_to(path) as relay:
        await relay.read()
        reader: Any = relay.reader  # asyncio has no public way to stop reading
        reader._transport.pause_reading()
        for _ in range(100):
            node.send(b"x" * 100_000)
        await until_async("the connection is closed", lambda: node._connection is None)
