"""The states of nodes follow what the fabric says, and what is lost is given up once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.deployments.doubles import HOST, turns
from tests.records.samples import record
from xinference.cluster.members import Member, Members
from xinference.cluster.rows import NodeRow
from xinference.fabric.memory import MemoryFabric, MemoryUplink
from xinference.nodes import messages
from xinference.nodes.membership import NodeState
from xinference.nodes.message_codec import decode_envelope, encode
from xinference.nodes.node import Node
from xinference.records.record import Record

SERVED = record(ended=time.time())
NODE = "n000000000001"


class Silent:
    """A node that has no replica and answers nothing."""

    def __init__(self) -> None:
        self.orders: list[messages.Ask | messages.Tell] = []
        self.heard: Callable[[], None] = lambda: None
        self.leaves = False

    async def answer(self, message: bytes) -> bytes:
        raise NotImplementedError

    def receive(self, message: bytes) -> None:
        self.orders.append(decode_envelope(message).body)
        self.heard()

    def receive_table(self, table: bytes) -> None: ...

    def state(self) -> bytes:
        return encode(messages.WholeState(is_leaving=self.leaves))


@dataclass
class Site:
    """Members with one node, and a clock that the test sets."""

    members: Members
    fabric: MemoryFabric
    member: Member
    uplink: MemoryUplink | None = None
    program: Silent = field(default_factory=Silent)
    now: list[float] = field(default_factory=lambda: [0.0])
    changes: list[tuple[NodeState, NodeState]] = field(default_factory=list)

    async def report(self) -> None:
        assert self.uplink is not None
        self.uplink.send(encode(messages.HostIs(HOST)))
        await turns()

    def compute(self, now: float) -> NodeState:
        """The state at a later time, as the next tick computes it."""
        self.now[0] = now
        self.members._compute(self.member)
        return self.member.state


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    fabric, nodes, now = MemoryFabric(), dict[str, Node](), [0.0]
    members = Members(fabric, 1, nodes, 30.0, lambda replica_id: True, clock=lambda: now[0])
    site = Site(members, fabric, members.add(NodeRow(NODE, "box", {}, False, 0.0, None)), now=now)
    members.changed = lambda member, before: site.changes.append((before, member.state))
    reading = asyncio.create_task(members.run())
    try:
        site.uplink = fabric.join(NODE, site.program)
        await turns()
        yield site
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await members.close()


async def test_a_node_is_ready_after_its_state_and_its_first_report() -> None:
    async with a_site() as site:
        assert site.member.state is NodeState.JOINING
        await site.report()
        assert site.changes == [
            (NodeState.UNREACHABLE, NodeState.JOINING),
            (NodeState.JOINING, NodeState.READY),
        ]
        assert site.member.node.last_host == HOST


async def test_a_server_waits_for_the_first_links_for_a_bounded_time() -> None:
    async with a_site() as site:
        waiting = asyncio.create_task(site.members.wait_linked(5.0))
        await turns()
        assert not waiting.done()
        site.now[0] = 5.0
        await asyncio.wait_for(waiting, 5)
        waiting = asyncio.create_task(site.members.wait_linked(5.0))
        await turns()
        assert not waiting.done()
        await site.report()
        await asyncio.wait_for(waiting, 5)
        assert site.members.state_of(site.member) is NodeState.READY


async def test_a_silent_node_is_lost_after_its_time_and_ready_after_its_next_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_site() as site:
        await site.report()
        given_up: list[str] = []
        monkeypatch.setattr(site.member.node, "give_up", lambda: given_up.append("given up"))
        monkeypatch.setattr(site.member.node, "stop_given_up", lambda: given_up.append("stopped"))
        assert site.compute(6.0) is NodeState.UNREACHABLE and site.members.seconds_left(site.member) == 24.0
        assert site.compute(30.0) is NodeState.LOST and site.compute(40.0) is NodeState.LOST
        assert given_up == ["given up"]
        await site.report()
        assert site.member.state is NodeState.READY and given_up == ["given up", "stopped"]


async def test_requests_that_a_node_has_answered_are_counted_once_and_acknowledged() -> None:
    async with a_site() as site:
        counted: list[Record] = []
        site.members.served = counted.extend
        assert site.uplink is not None
        site.uplink.send(encode(messages.Served("p1", 2, (SERVED, SERVED))))
        site.uplink.send(encode(messages.Served("p1", 3, (SERVED, SERVED, SERVED))))
        await turns()
        assert [each.node for each in counted] == [NODE] * 3
        assert site.program.orders == [messages.Counted("p1", 2), messages.Counted("p1", 3)]


async def test_records_that_nobody_counts_yet_stay_at_their_node() -> None:
    async with a_site() as site:
        assert site.uplink is not None
        site.uplink.send(encode(messages.Served("p1", 1, (SERVED,))))
        await turns()
        assert site.program.orders == []


async def test_a_cut_link_is_told_at_once_and_a_drain_too() -> None:
    async with a_site() as site:
        await site.report()
        site.members.set_drained("box", drained=True)
        assert site.member.state is NodeState.DRAINING
        site.fabric.cut(NODE)
        await turns()
        states = [after for _, after in site.changes]
        assert states[-1] is NodeState.UNREACHABLE and site.member.node.last_host is None


async def test_a_worker_that_ends_may_leave_once_nothing_is_placed_on_its_node() -> None:
    async with a_site() as site:
        await site.report()
        seen: list[NodeState] = []
        site.program.heard = lambda: seen.append(site.member.state)
        assert site.uplink is not None
        site.uplink.send(encode(messages.Leaving()))
        await turns()
        assert site.program.orders == [messages.MayLeave()] and seen == [NodeState.LEAVING]
        assert site.members.lack_of(site.member) == "is LEAVING"


async def test_a_worker_that_waits_may_leave_only_when_its_replicas_are_moved() -> None:
    async with a_site() as site:
        await site.report()
        leaving: list[Member] = []
        site.members.leaves = leaving.append
        assert site.uplink is not None
        site.uplink.send(encode(messages.Leaving(waits=True)))
        await turns()
        assert leaving == [site.member] and site.member.state is NodeState.LEAVING
        assert site.program.orders == [messages.LeaveNoted()]
        site.uplink.send(encode(messages.Leaving()))
        await turns()
        assert site.program.orders == [messages.LeaveNoted(), messages.MayLeave()], "it waits no longer"


async def test_the_log_says_why_nothing_is_placed_on_a_node(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with a_site() as site:
        await site.report()
        assert site.uplink is not None
        site.uplink.send(encode(messages.Leaving()))
        await turns()
        site.fabric.cut(NODE)
        await turns()
        assert "(box): LEAVING, was READY: its worker ends and stops its engines" in caplog.text
        assert "(box): LOST, was LEAVING: its worker has ended" in caplog.text


async def test_a_node_is_ready_again_when_its_next_worker_is_linked() -> None:
    async with a_site() as site:
        await site.report()
        assert site.uplink is not None
        site.uplink.send(encode(messages.Leaving()))
        await turns()
        site.uplink = site.fabric.join(NODE, Silent())
        await turns()
        await site.report()
        states = [after for _, after in site.changes]
        assert states[-4:] == [NodeState.LEAVING, NodeState.LOST, NodeState.JOINING, NodeState.READY]


async def test_a_worker_whose_link_breaks_while_it_ends_says_it_again() -> None:
    async with a_site() as site:
        site.program.leaves = True
        site.fabric.cut(NODE)
        site.fabric.mend(NODE)
        await turns()
        await site.report()
        assert site.member.state is NodeState.LEAVING and site.program.orders == [messages.MayLeave()]


async def test_a_server_that_stops_its_engines_waits_two_seconds_for_a_node_out_of_reach() -> None:
    async with a_site() as site:
        site.uplink = site.fabric.join(NODE, site.program)
        await site.report()
        assert site.members.begin_end() == []
        site.fabric.cut(NODE)
        await turns()
        assert site.compute(1.0) is NodeState.UNREACHABLE
        assert site.members.begin_end() == [site.member]
        assert site.compute(2.1) is NodeState.LOST
