"""A drain moves replicas one by one, and leaves no model with a replica too many, whenever it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from tests.deployments.doubles import turns
from xinference.control.node_drain import NodeDrain

DRAINED = "n1"


@dataclass
class Moving:
    """A deployment whose successors become ready when the test says so."""

    uid: str = "one"
    nodes: dict[int, str] = field(default_factory=lambda: {0: DRAINED, 1: DRAINED})
    stored: list[bool] = field(default_factory=list)
    may_be_ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def snapshot(self) -> Any:
        replicas = [
            SimpleNamespace(number=number, ready=True, removing=False, process=SimpleNamespace(node_id=node))
            for number, node in self.nodes.items()
        ]
        return SimpleNamespace(replicas=replicas)

    async def add_replica(self, *, is_stored: bool) -> int:
        number = max(self.nodes) + 1
        self.stored.append(is_stored)
        await self.may_be_ready.wait()
        self.nodes[number] = "n2"
        return number

    async def remove_replica(self, number: int) -> int:
        await asyncio.sleep(0)
        del self.nodes[number]
        return len(self.nodes)


def _drain(deployment: Moving) -> NodeDrain:
    return NodeDrain(lambda: [cast(Any, deployment)], retry_seconds=0.0)


async def test_all_replicas_move_and_no_successor_is_counted_before_its_predecessor_is_gone() -> None:
    deployment = Moving()
    drains = _drain(deployment)
    deployment.may_be_ready.set()
    drains.begin(DRAINED)
    for _ in range(10):
        await turns()
    assert deployment.nodes == {2: "n2", 3: "n2"} and deployment.stored == [False, False]
    await drains.close()


async def test_the_end_of_the_moves_is_told_once_nothing_can_be_moved() -> None:
    deployment, moved = Moving(), list[dict[int, str]]()
    drains = _drain(deployment)
    drains.move_all(DRAINED, lambda: moved.append(dict(deployment.nodes)))
    await turns()
    assert moved == []
    deployment.may_be_ready.set()
    for _ in range(10):
        await turns()
    assert moved == [{2: "n2", 3: "n2"}]
    await drains.close()
    drains.move_all(DRAINED, lambda: moved.append({}))
    assert moved[1:] == [{}], "a server that ends moves nothing"


async def test_a_move_that_has_begun_is_completed_after_the_end_of_the_drain() -> None:
    deployment = Moving()
    drains = _drain(deployment)
    drains.begin(DRAINED)
    await turns()
    drains.end(DRAINED)
    deployment.may_be_ready.set()
    for _ in range(10):
        await turns()
    assert deployment.nodes == {1: DRAINED, 2: "n2"}, "one has moved, the other stays"
    await drains.close()


async def test_a_drain_that_begins_again_during_a_move_goes_on() -> None:
    deployment = Moving()
    drains = _drain(deployment)
    drains.begin(DRAINED)
    await turns()
    drains.end(DRAINED)
    drains.begin(DRAINED)
    deployment.may_be_ready.set()
    for _ in range(10):
        await turns()
    assert set(deployment.nodes.values()) == {"n2"} and len(deployment.nodes) == 2
    await drains.close()
