"""Moves the replicas away from nodes that are taken out or whose worker ends: each after its successor is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from xinference.deployments.deployment import Deployment
from xinference.errors import Problem

log = logging.getLogger(__name__)
#: Interval at which the replicas that could not be moved are tried again, in seconds.
RETRY_SECONDS = 5.0


class NodeDrain:
    """The drains that go on, by node.

    Args:
        deployments: the deployments that work now; read for each round.
    """

    def __init__(self, deployments: Callable[[], Iterable[Deployment]], retry_seconds: float = RETRY_SECONDS) -> None:
        self._deployments = deployments
        self._retry_seconds = retry_seconds
        self._draining: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._moved: dict[str, Callable[[], None]] = {}
        """By node: what is called when no replica there can be moved now."""
        self._is_closed = False

    def begin(self, node_id: str) -> None:
        """Move all replicas away from a node, until `end` is called."""
        self._draining.add(node_id)
        if node_id not in self._tasks:
            self._tasks[node_id] = asyncio.create_task(self._run(node_id), name=f"drain of {node_id}")

    def move_all(self, node_id: str, moved: Callable[[], None]) -> None:
        """Move all replicas away from a node, and call `moved` once no replica is left there that can be moved now."""
        if self._is_closed:
            moved()
            return
        self._moved[node_id] = moved
        self.begin(node_id)

    def end(self, node_id: str) -> None:
        """Begin no more moves. One that has begun goes on: between its steps, the model has a replica too many."""
        self._draining.discard(node_id)
        self._moved.pop(node_id, None)

    async def close(self) -> None:
        """End all drains. A successor whose predecessor runs is not stored: the next server ends it."""
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, node_id: str) -> None:
        refused: set[str] = set()
        try:
            while node_id in self._draining:
                moved = False
                for deployment, number in self._on(node_id):
                    moved = (node_id in self._draining and await self._move(deployment, number, refused)) or moved
                if not moved:
                    if (call := self._moved.pop(node_id, None)) is not None:
                        call()
                    await asyncio.sleep(self._retry_seconds)
        finally:
            del self._tasks[node_id]

    def _on(self, node_id: str) -> list[tuple[Deployment, int]]:
        """The ready replicas on a node: one of each deployment, since a move gives the others their time."""
        found = []
        for deployment in self._deployments():
            numbers = (
                replica.number
                for replica in deployment.snapshot.replicas
                if replica.ready and not replica.removing and replica.process is not None
                if replica.process.node_id == node_id
            )
            if (number := next(numbers, None)) is not None:
                found.append((deployment, number))
        return found

    async def _move(self, deployment: Deployment, number: int, refused: set[str]) -> bool:
        """Start another replica, then remove this one after its last answer; returns whether it was moved."""
        try:
            successor = await deployment.add_replica(is_stored=False)
            await deployment.remove_replica(number)
        except Problem as problem:
            if problem.cause not in refused:  # each reason is told once
                refused.add(problem.cause)
                log.warning("replica %d of %s is not moved: %s", number, deployment.uid, problem.cause)
            return False
        log.info("replica %d of %s is moved; its successor is replica %d", number, deployment.uid, successor)
        return True
