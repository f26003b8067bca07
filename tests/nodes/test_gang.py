"""Several ranks are one replica: they start, fail and end as one."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest

from tests.deployments.doubles import DIED, FakeReplica, turns
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.gang import Gang
from xinference.process.command import Exit, Fault
from xinference.process.snapshot import ReplicaState


class Ranks:
    """A gang of ranks whose lives the test decides."""

    def __init__(self, count: int = 3) -> None:
        self.reports = 0
        self.ranks = [FakeReplica(f"r-{number}", lambda: None) for number in range(count)]
        for number, rank in enumerate(self.ranks):
            rank.snapshot = dataclasses.replace(rank.snapshot, node_id=f"node-{number}")
        self.gang = Gang(self.ranks, self._count)

    def state(self) -> ReplicaState:
        return self.gang.snapshot.state

    def _count(self) -> None:
        self.reports += 1


async def test_it_is_ready_when_all_ranks_are() -> None:
    made = Ranks()
    made.ranks[0].become_ready()
    made.ranks[2].become_ready()
    await turns()
    assert made.state() is ReplicaState.STARTING
    made.ranks[1].become_ready()
    await made.gang.wait_ready()
    assert made.state() is ReplicaState.READY
    assert made.gang.snapshot.base_url == "http://r-0"
    assert made.reports


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_the_exit_of_any_rank_ends_all(number: int) -> None:
    made = Ranks()
    for rank in made.ranks:
        rank.become_ready()
    await made.gang.wait_ready()
    made.ranks[number].die()
    exit = await made.gang.wait_exited()
    assert all(rank.over for rank in made.ranks)
    assert exit.log_tail == DIED.log_tail
    assert not exit.requested
    assert made.gang.snapshot.exit == exit
    expected = "exited with status 1" if number == 0 else f"ended with its rank {number} on node-{number}"
    assert exit.reason.startswith(expected)


async def test_it_takes_no_requests_while_the_other_ranks_end() -> None:
    made = Ranks()
    for rank in made.ranks:
        rank.become_ready()
    await made.gang.wait_ready()
    made.ranks[0].stops.clear()
    made.ranks[2].die()
    assert made.state() is ReplicaState.STOPPING  # in the same turn of the loop in which the rank reports its exit
    await turns()
    assert made.state() is ReplicaState.STOPPING
    assert made.gang.snapshot.exit is None
    made.ranks[0].let_stop()
    await made.gang.wait_exited()
    assert made.state() is ReplicaState.EXITED


async def test_a_rank_that_fails_before_it_is_ready_fails_the_start() -> None:
    made = Ranks()
    made.ranks[0].become_ready()
    made.ranks[1].die(problem=Problem(Code.ENGINE_START_TIMEOUT, "The engine did not open its port."))
    with pytest.raises(Problem) as raised:
        await made.gang.wait_ready()
    assert raised.value.code == Code.ENGINE_START_TIMEOUT
    assert "Rank 1 of the replica on node-1" in raised.value.cause
    await made.gang.wait_exited()
    assert all(rank.over for rank in made.ranks)


async def test_of_ranks_that_fail_together_the_one_that_was_not_stopped_is_named() -> None:
    made = Ranks()
    stopped = Problem(Code.ENGINE_STOPPED, "The engine was stopped while it was starting.")
    made.ranks[0].die(Exit(0, None, (), 0.0, requested=True), stopped)
    made.ranks[2].die(problem=Problem(Code.ENGINE_DIED, "The engine exited with status 3 before it was ready."))
    with pytest.raises(Problem, match="status 3"):
        await made.gang.wait_ready()


async def test_a_stop_ends_all_ranks_and_was_requested() -> None:
    made = Ranks()
    for rank in made.ranks:
        rank.become_ready()
    exit = await made.gang.stop()
    assert exit is not None and exit.requested
    assert all(rank.stopped and rank.over for rank in made.ranks)
    assert made.state() is ReplicaState.EXITED


async def test_a_cancelled_start_ends_all_ranks() -> None:
    made = Ranks()
    waiting = asyncio.create_task(made.gang.wait_ready())
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert all(rank.over for rank in made.ranks)


async def test_a_detached_gang_leaves_its_engines_alone() -> None:
    made = Ranks()
    for rank in made.ranks:
        rank.become_ready()
    await made.gang.wait_ready()
    await made.gang.detach()
    assert all(rank.detached and not rank.stopped for rank in made.ranks)
    with pytest.raises(Problem) as raised:
        await made.gang.wait_exited()
    assert raised.value.code == Code.ENGINE_DETACHED
    assert await made.gang.stop() is None


async def test_the_fault_of_a_rank_is_that_of_the_gang() -> None:
    made = Ranks()
    for rank in made.ranks:
        rank.become_ready()
    hung = made.ranks[1]
    hung.snapshot = dataclasses.replace(hung.snapshot, fault=Fault.HUNG, state=ReplicaState.STOPPING)
    assert made.gang.snapshot.fault is Fault.HUNG
    assert made.state() is ReplicaState.STOPPING
    hung.die(dataclasses.replace(DIED, fault=Fault.HUNG))
    assert (await made.gang.wait_exited()).fault is Fault.HUNG


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_happens_in_whatever_order_no_rank_outlives_another(seed: int) -> None:
    chance = random.Random(seed)
    made = Ranks(chance.randint(2, 5))
    for _ in range(chance.randint(1, 12)):
        rank = chance.choice(made.ranks)
        match chance.choice(("ready", "die", "turn", "stop")):
            case "ready" if not rank.over:
                rank.become_ready()
            case "die" if chance.random() < 0.3:
                rank.die()
            case "stop" if chance.random() < 0.2:
                await made.gang.stop()
            case _:
                await turns()
        states = {each.snapshot.state for each in made.ranks}
        assert made.state() is not ReplicaState.READY or states == {ReplicaState.READY}
    await turns()
    over = [rank.over for rank in made.ranks]
    assert all(over) or not any(over)
    await made.gang.stop()
    assert all(rank.over for rank in made.ranks)
