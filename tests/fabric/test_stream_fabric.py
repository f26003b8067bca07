"""The links over streams: what both ends see, and how a lost stream ends a call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from xinference.fabric.fabric import Event, Link, NodeGoneError, NoReservationError, Share
from xinference.fabric.frames import Answer, Call, Failure
from xinference.fabric.node_connection import NodeConnection
from xinference.fabric.stream_fabric import StreamFabric


@dataclass
class Program:
    """A node that answers with what it was asked, once it may."""

    tables: list[bytes] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, message: bytes) -> bytes:
        self.changed.set()
        await self.may_answer.wait()
        return b"answer to " + message

    def receive(self, message: bytes) -> None:
        self.told.append(message)
        self.changed.set()

    def receive_table(self, table: bytes) -> None:
        self.tables.append(table)
        self.changed.set()

    def state(self) -> bytes:
        return b"state"


@dataclass
class Dialled:
    """A node that has dialled the supervisor."""

    connection: NodeConnection
    task: asyncio.Task[None]

    async def hang_up(self) -> None:
        self.connection.close()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass
class Site:
    """A supervisor's fabric, and a port to which nodes dial."""

    fabric: StreamFabric
    port: int
    dialled: list[Dialled] = field(default_factory=list)

    async def dial(self, program: Program) -> Dialled:
        connection = NodeConnection(program, *await asyncio.open_connection("127.0.0.1", self.port))
        made = Dialled(connection, asyncio.create_task(connection.serve()))
        self.dialled.append(made)
        return made


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    fabric = StreamFabric()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(fabric.serve("n1", reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    site = Site(fabric, server.sockets[0].getsockname()[1])
    try:
        yield site
    finally:
        for each in site.dialled:
            await each.hang_up()
        server.close()
        for task in serving:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*serving, return_exceptions=True)


async def test_a_node_is_linked_and_its_first_event_is_its_state() -> None:
    async with a_site() as site:
        await site.dial(Program())
        assert await anext(site.fabric.links()) == Link("n1", True)
        assert await anext(site.fabric.events()) == ("n1", Event(1, b"state"))


async def test_a_node_answers_a_call_and_gets_what_it_is_told() -> None:
    async with a_site() as site:
        program = Program()
        program.may_answer.set()
        await site.dial(program)
        await anext(site.fabric.links())
        assert await site.fabric.call("n1", b"look", 30) == b"answer to look"
        program.changed.clear()
        site.fabric.tell("n1", b"stop")
        await program.changed.wait()
        assert program.told == [b"stop"]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, 1e300])
async def test_a_call_whose_time_is_none_is_refused_by_name_and_the_link_holds(
    seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_site() as site:
        program = Program()
        program.may_answer.set()
        await site.dial(program)
        await anext(site.fabric.links())
        answers: list[Answer | Failure] = []
        site.fabric._questions.answer = lambda message, node=None: answers.append(message)  # type: ignore[method-assign]  # it has asked nothing
        for number, each in ((7, seconds), (8, 30.0)):
            site.fabric._ends["n1"].write(Call(number, "n1", b"look", each))
        async with asyncio.timeout(10):
            while len(answers) < 2:
                await asyncio.sleep(0)
        refused, answered = answers
        assert isinstance(refused, Failure) and (refused.number, refused.reason) == (7, "refused")
        assert f"the call 7 has the time {seconds} s" in refused.text and refused.text in caplog.text
        assert answered == Answer(8, b"answer to look")


async def test_a_node_that_never_dialled_is_gone() -> None:
    async with a_site() as site:
        with pytest.raises(NodeGoneError):
            await site.fabric.call("n9", b"look", 30)
        with pytest.raises(NoReservationError):
            await site.fabric.reserve([Share("n9", 1)])
        site.fabric.tell("n9", b"lost")


async def test_a_node_that_hangs_up_ends_the_open_call_at_once() -> None:
    async with a_site() as site:
        program = Program()
        dialled = await site.dial(program)
        links = site.fabric.links()
        await anext(links)
        call = asyncio.create_task(site.fabric.call("n1", b"look", 3600))
        await program.changed.wait()
        await dialled.hang_up()
        with pytest.raises(NodeGoneError):
            await call
        assert await anext(links) == Link("n1", False)


async def test_a_node_that_says_nothing_in_time_is_a_timeout() -> None:
    async with a_site() as site:
        await site.dial(Program())
        await anext(site.fabric.links())
        with pytest.raises(TimeoutError):
            await site.fabric.call("n1", b"look", 0)


async def test_a_node_that_dials_again_takes_the_link_and_gets_the_newest_table() -> None:
    async with a_site() as site:
        first, second = Program(), Program()
        await site.dial(first)
        links = site.fabric.links()
        await anext(links)
        site.fabric.publish(b"1")
        site.fabric.publish(b"2")
        await site.dial(second)
        assert [await anext(links), await anext(links)] == [Link("n1", False), Link("n1", True)]
        await second.changed.wait()
        assert second.tables == [b"2"]


async def test_what_is_no_frame_ends_the_link() -> None:
    async with a_site() as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        links = site.fabric.links()
        assert [(await anext(links)).is_up, (await anext(links)).is_up] == [True, False]
        writer.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


async def test_events_and_links_are_handed_over_in_order_also_those_from_before() -> None:
    async with a_site() as site:
        first = await site.dial(Program())
        events = site.fabric._events
        await until(lambda: events.qsize() == 1)
        first.connection.send_event(b"before")
        await until(lambda: events.qsize() == 2)
        taken: list[object] = []
        handing = asyncio.create_task(site.fabric.hand_over(lambda _, event: taken.append(event.body), taken.append))
        await first.hang_up()
        second = await site.dial(Program())
        await until(lambda: taken.count(b"state") == 2)
        second.connection.send_event(b"after")
        await until(lambda: b"after" in taken)
        handing.cancel()
    assert taken == [Link("n1", True), b"state", b"before", Link("n1", False), Link("n1", True), b"state", b"after"]


async def test_a_change_of_a_link_is_not_handed_over_within_the_call_that_makes_it() -> None:
    async with a_site() as site:
        await site.dial(Program())
        taken: list[Link] = []
        handing = asyncio.create_task(site.fabric.hand_over(lambda node, event: None, taken.append))
        await until(lambda: bool(taken))
        site.fabric.cut("n1")
        assert taken == [Link("n1", True)]
        await until(lambda: len(taken) == 2)
        handing.cancel()
    assert taken == [Link("n1", True), Link("n1", False)]
