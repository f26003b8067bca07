"""Moves the replicas away from nodes that an operator takes out: each after its successor is ready elsewhere."""

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
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, node_id: str) -> None:
        """Move all replicas away from a node, until `end` is called."""
        if node_id not in self._tasks:
            self._tasks[node_id] = asyncio.create_task(self._run(node_id), name=f"drain of {node_id}")

    def end(self, node_id: str) -> None:
        """Move nothing more. A replica that is being moved has its successor, and may stay."""
        if (task := self._tasks.pop(node_id, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """End all drains."""
        tasks = list(self._tasks.values())
        for node_id in tuple(self._tasks):
            self.end(node_id)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, node_id: str) -> None:
        refused: set[str] = set()
        while True:
            moved = [await self._move(deployment, number, refused) for deployment, number in self._on(node_id)]
            if not any(moved):
                await asyncio.sleep(self._retry_seconds)

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
            successor = await deployment.add_replica()
            await deployment.remove_replica(number)
        except Problem as problem:
            if problem.cause not in refused:  # each reason is told once
                refused.add(problem.cause)
                log.warning("replica %d of %s is not moved: %s", number, deployment.uid, problem.cause)
            return False
        log.info("replica %d of %s is moved; its successor is replica %d", number, deployment.uid, successor)
        return True
