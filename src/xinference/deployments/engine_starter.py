"""Starts, adopts and measures engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from xinference.config import Settings
from xinference.deployments.preparation import Runnable
from xinference.deployments.replica_command import engine_command
from xinference.deployments.states_folder import states_folder
from xinference.engines.base import Engine
from xinference.hosts import LOCAL_NODE
from xinference.launch.plan import SizedPlan
from xinference.nodes.gang import Gang, rank_id, ranks_of
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import Node, ReplicaLike, node_of
from xinference.process.log_links import link_log

#: The ports of rank 0 at which the ranks of a replica meet: another one at each start, because the last may be in use.
_meeting_ports = itertools.cycle(range(29_500, 29_600))


class Starter(Protocol):
    """Starts and adopts engines. It calls `changed` after each new snapshot of a replica."""

    async def start(
        self, replica_id: str, plan: SizedPlan, number: int, python: Path, changed: Callable[[], None]
    ) -> ReplicaLike:
        """Start the replica of `plan` with this number, with `python` as its interpreter.

        Raises:
            Problem: the replica cannot be started.
        """
        ...

    async def adopt(self, replica_id: str, changed: Callable[[], None]) -> ReplicaLike | None:
        """The running replica of an earlier server, which calls `changed` from now on; None: it does not run."""
        ...

    async def measure(self, replica: ReplicaLike) -> MemoryUse | None:
        """Measure the memory of a replica's processes; None: it cannot be measured."""
        ...


class EngineStarter:
    """A `Starter` of real engines, each on the node of its place."""

    def __init__(
        self,
        engine: Engine,
        nodes: Mapping[str, Node],
        adopted: Mapping[str, ReplicaLike] = MappingProxyType({}),
        settings: Settings | None = None,
        prepared: Mapping[str, Runnable] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            adopted: the running replicas of an earlier server, by their ids.
            settings: those of the server; None: no replica saves states of prompts.
            prepared: the weights and the interpreter on each other node.
        """
        self._prepared = prepared
        self._settings = settings
        self._engine = engine
        self._nodes = nodes
        self._adopted = dict(adopted)

    async def start(
        self, replica_id: str, plan: SizedPlan, number: int, python: Path, changed: Callable[[], None]
    ) -> ReplicaLike:
        if plan.place_of(number).ranks:
            return self._start_ranks(replica_id, plan, number, changed)
        node = self._node(plan.place_of(number).node_id)
        # The gateway writes to the folder, too, so it is on the gateway's machine.
        settings = self._settings if node.node_id == LOCAL_NODE else None
        if (prepared := self._prepared.get(node.node_id)) is not None:
            plan, python = replace(plan, path=prepared.path), prepared.python
        states = None if settings is None else await states_folder(self._engine, plan, settings)
        command = engine_command(self._engine, plan, number, python, states)
        started = node.start(replica_id, command, changed)
        if node.node_id == LOCAL_NODE:  # the log of another machine is there
            link_log(started.snapshot.log_path, plan.uid, number)
        return started

    async def adopt(self, replica_id: str, changed: Callable[[], None]) -> ReplicaLike | None:
        replica = self._adopted.pop(replica_id, None)
        if replica is not None:
            replica.report_to(changed)
        return replica

    async def measure(self, replica: ReplicaLike) -> MemoryUse | None:
        snapshot = replica.snapshot
        return await self._node(snapshot.node_id).measure(snapshot)

    def _start_ranks(self, replica_id: str, plan: SizedPlan, number: int, changed: Callable[[], None]) -> ReplicaLike:
        """Start a process on each node of a replica.

        Raises:
            Problem: 503 ``node_unknown``, ``node_gone``.
        """
        first = plan.place_of(number)
        nodes = [self._node(node_id) for node_id in first.nodes]
        ranks = ranks_of(nodes, next(_meeting_ports))
        commands = []
        for node, place, rank in zip(nodes, (first, *first.ranks), ranks, strict=True):
            prepared = self._prepared[node.node_id]
            here = replace(plan, path=prepared.path)
            commands.append(engine_command(self._engine, here, number, prepared.python, rank=(rank, place.devices)))
        return Gang(
            [
                node.start(rank_id(replica_id, rank.number), command, lambda: None)
                for node, rank, command in zip(nodes, ranks, commands, strict=True)
            ],
            changed,
        )

    def _node(self, node_id: str) -> Node:
        return node_of(self._nodes, node_id)
