"""Moves a replica to another node: chooses the node, and prepares weights and environment there before the start."""

from __future__ import annotations

import asyncio
from pathlib import Path

from xinference.deployments.context import DeploymentContext
from xinference.deployments.inbox import Inbox
from xinference.deployments.loader import Loader
from xinference.deployments.messages import Placed, RestartDue, Waits
from xinference.deployments.preparation import Preparation
from xinference.deployments.record import Record
from xinference.deployments.snapshot import Stage
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.launch.place import Place
from xinference.launch.plan import SizedPlan

#: Interval at which a replica without room looks for it, in seconds: a node may join, or another model may end.
RETRY_SECONDS = 3.0


class Relocation:
    """Finds places for replicas without a process. Its tasks put `Placed`, `Waits` or `RestartDue` into the inbox."""

    def __init__(
        self,
        context: DeploymentContext,
        record: Record,
        loader: Loader,
        preparation: Preparation,
        inbox: Inbox,
    ) -> None:
        self._context = context
        self._record = record
        self._loader = loader
        self._preparation = preparation
        self._inbox = inbox
        self._running: set[int] = set()
        self._problems: dict[int, str] = {}
        """The last reason for which a replica waits, by its number: each is told once."""

    def is_due(self, plan: SizedPlan, number: int) -> bool:
        """Whether a replica cannot be started at its place as it is."""
        placer = self._context.placer
        if placer is None or not placer.takes(plan):
            return False
        return any(
            not placer.is_usable(node_id) or (node_id != LOCAL_NODE and node_id not in self._preparation.prepared)
            for node_id in plan.place_of(number).nodes
        )

    def python(self, plan: SizedPlan | None, number: int) -> Path | None:
        """The interpreter on the node of a replica; None: it is not prepared, or is the server's own."""
        prepared = None if plan is None else self._preparation.prepared.get(plan.place_of(number).node_id)
        return None if prepared is None else prepared.python

    def begin(self, plan: SizedPlan, number: int) -> None:
        """Find a place for a replica, unless that goes on."""
        if number not in self._running:
            self._running.add(number)
            self._inbox.spawn(self._run(plan, number))

    async def _run(self, plan: SizedPlan, number: int) -> None:
        try:
            place = await self._place(plan, number)
        except Problem as problem:
            if self._problems.get(number) != problem.cause:
                self._problems[number] = problem.cause
                self._record.add_event(Stage.START, f"replica {number} waits: {problem.cause}", level="WARNING")
            self._inbox.put(Waits(number, problem))
            if self._context.room is not None:
                self._context.room.ask(plan.uid, plan.request)
            await asyncio.sleep(RETRY_SECONDS)
            self._running.discard(number)
            self._inbox.put(RestartDue(number))
        else:
            self._problems.pop(number, None)
            if self._context.room is not None:
                self._context.room.end(plan.uid)
            self._running.discard(number)
            self._inbox.put(Placed(number, place))

    async def _place(self, plan: SizedPlan, number: int) -> Place:
        """The place of a replica, which is prepared."""
        assert self._context.placer is not None  # `is_due` has asked for it
        place = plan.place_of(number)
        if unusable := [node_id for node_id in place.nodes if not self._context.placer.is_usable(node_id)]:
            for node_id in unusable:
                self._preparation.prepared.pop(node_id, None)
            place = await self._loader.place_additional_replica(plan, ())
        if number in self._problems:
            self._inbox.put(Waits(number, None))
        for node_id in place.nodes:
            if node_id != LOCAL_NODE:
                await self._preparation.prepare_node(plan, node_id)
        return place
