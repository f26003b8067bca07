"""The contract of a fabric: order, what a node gets when it joins again, and how a lost link ends a call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from xinference.fabric.fabric import Event, Link, NodeGoneError, NoReservationError, Share
from xinference.fabric.memory import MemoryFabric


@dataclass
class Program:
    """A node that answers with what it was asked, once it may."""

    tables: list[bytes] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, message: bytes) -> bytes:
        self.asked.set()
        await self.may_answer.wait()
        return b"answer to " + message

    def receive(self, message: bytes) -> None:
        self.told.append(message)

    def receive_table(self, table: bytes) -> None:
        self.tables.append(table)

    def state(self) -> bytes:
        return b"state"


@pytest.fixture
def fabric() -> MemoryFabric:
    return MemoryFabric({"n1": 2, "n2": 1})


async def test_a_node_answers_a_call(fabric: MemoryFabric) -> None:
    program = Program()
    program.may_answer.set()
    fabric.join("n1", program)
    assert await fabric.call("n1", b"look", 5) == b"answer to look"


async def test_a_node_that_never_joined_is_gone(fabric: MemoryFabric) -> None:
    with pytest.raises(NodeGoneError) as caught:
        await fabric.call("n9", b"look", 5)
    assert caught.value.node == "n9"


async def test_a_cut_link_ends_the_open_call_at_once(fabric: MemoryFabric) -> None:
    program = Program()
    fabric.join("n1", program)
    call = asyncio.create_task(fabric.call("n1", b"look", 3600))
    await program.asked.wait()
    fabric.cut("n1")
    with pytest.raises(NodeGoneError):
        await call


async def test_a_caller_that_leaves_is_cancelled_and_not_told_of_a_lost_node(fabric: MemoryFabric) -> None:
    program = Program()
    fabric.join("n1", program)
    call = asyncio.create_task(fabric.call("n1", b"look", 3600))
    await program.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_node_that_says_nothing_in_time_is_a_timeout(fabric: MemoryFabric) -> None:
    fabric.join("n1", Program())
    with pytest.raises(TimeoutError):
        await fabric.call("n1", b"look", 0)


async def test_a_node_that_joins_again_gets_the_newest_table_first(fabric: MemoryFabric) -> None:
    program = Program()
    fabric.join("n1", program)
    fabric.publish(b"1")
    fabric.cut("n1")
    fabric.publish(b"2")
    fabric.publish(b"3")
    assert program.tables == [b"1"]
    fabric.mend("n1")
    assert program.tables == [b"1", b"3"]


async def test_events_are_numbered_and_the_first_after_a_link_is_the_whole_state(fabric: MemoryFabric) -> None:
    uplink = fabric.join("n1", Program())
    uplink.send(b"a")
    fabric.cut("n1")
    uplink.send(b"lost")
    fabric.mend("n1")
    uplink.send(b"b")
    events = fabric.events()
    got = [await anext(events) for _ in range(4)]
    assert got == [
        ("n1", Event(1, b"state")),
        ("n1", Event(2, b"a")),
        ("n1", Event(1, b"state")),
        ("n1", Event(2, b"b")),
    ]


async def test_each_change_of_a_link_is_told_in_order(fabric: MemoryFabric) -> None:
    fabric.join("n1", Program())
    fabric.cut("n1")
    fabric.cut("n1")
    fabric.mend("n1")
    links = fabric.links()
    assert [await anext(links) for _ in range(3)] == [Link("n1", True), Link("n1", False), Link("n1", True)]


async def test_a_second_node_of_one_name_takes_the_link_of_the_first(fabric: MemoryFabric) -> None:
    first = fabric.join("n1", Program())
    second = Program()
    second.may_answer.set()
    fabric.join("n1", second)
    first.send(b"late")
    assert await fabric.call("n1", b"look", 5) == b"answer to look"
    events = fabric.events()
    assert [await anext(events) for _ in range(2)] == [("n1", Event(1, b"state")), ("n1", Event(1, b"state"))]
    fabric.join("n2", Program())
    assert (await anext(events))[0] == "n2", "the event of the node that lost its link was not delivered"


async def test_a_message_to_a_lost_node_is_dropped(fabric: MemoryFabric) -> None:
    program = Program()
    fabric.join("n1", program)
    fabric.tell("n1", b"a")
    fabric.cut("n1")
    fabric.tell("n1", b"b")
    assert program.told == [b"a"]


async def test_a_reservation_is_whole_or_not_at_all(fabric: MemoryFabric) -> None:
    with pytest.raises(NoReservationError, match=r"n2 has 1 free GPUs, and 2 are needed"):
        await fabric.reserve([Share("n1", 2), Share("n2", 2)])
    first = await fabric.reserve([Share("n1", 1), Share("n1", 1), Share("n2", 1)])
    with pytest.raises(NoReservationError):
        await fabric.reserve([Share("n1", 1)])
    await first.release()
    await first.release()
    await fabric.reserve([Share("n1", 2)])
    with pytest.raises(NoReservationError):
        await fabric.reserve([Share("n1", 1)])
