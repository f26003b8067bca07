"""Starts, adopts and measures engines, and explains their exits."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from xinference.config import Settings
from xinference.deployments.preparation import Runnable
from xinference.deployments.states_folder import states_folder
from xinference.engines.base import Engine
from xinference.engines.replica_placement import (
    Placement,
    Rank,
)
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.launch.launch_context import encode_launch
from xinference.launch.place import Place, Places, shortest
from xinference.launch.plan import LaunchPlan, SizedPlan, Sizing
from xinference.nodes.engine_guard import guard_context
from xinference.nodes.gang import Gang, rank_id, ranks_of
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import Node, ReplicaLike, node_of
from xinference.planning import replicas
from xinference.process.command import EngineCommand, Exit, Fault
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


def engine_command(
    engine: Engine,
    plan: SizedPlan,
    number: int,
    python: Path,
    states: Path | None = None,
    rank: tuple[Rank, tuple[int, ...]] | None = None,
) -> EngineCommand:
    """The command of the replica with this number. Its context is the input of `restore_sizing`.

    Args:
        states: the folder for saved states of prompts.
        rank: the rank whose command it is, with its devices; None: one node computes the replica.
    """
    if rank is None:
        placement = Placement(python, plan.devices_of(number), states)
    else:
        placement = Placement(python, rank[1], rank=rank[0])
    command = engine.command(plan, secrets.token_urlsafe(32), placement)
    sizing, devices = msgspec.structs.asdict(plan.sizing), plan.devices
    context = {
        "uid": plan.uid,
        "path": str(plan.path),
        "sizing": sizing,
        "writes_calls": plan.writes_calls,
        "devices": devices,
        "nodes": [place.node_id for place in plan.places],
        "ranks": [[[rank.node_id, rank.devices] for rank in place.ranks] for place in plan.places],
        "launch": encode_launch(plan),
        "guard": guard_context(plan, command),
    }
    # The variables of the engine override those of the user: they set its key, its devices and its offline mode.
    env = {**plan.request.envs, **command.env}
    return EngineCommand(**{**vars(command), "env": env, "context": context})


def restore_sizing(plan: LaunchPlan, number: int, context: Mapping[str, Any]) -> LaunchPlan:
    """The plan with the size and devices that the running engine was started with, read from its context."""
    try:
        sizing = Sizing(**{**context["sizing"], "reasons": ()})
        path, reported = Path(context["path"]), _stored_places(context)
    except (KeyError, TypeError):
        return plan  # another release wrote the context: the launch is sized again, and only a restart uses that size
    launch, adopted = (plan.launch, plan.places) if isinstance(plan, SizedPlan) else (plan, ())
    places, writes_calls = replicas.merge_places(adopted, reported, number), context.get("writes_calls")
    return SizedPlan(launch, path, sizing, places, writes_calls=writes_calls)


def _stored_places(context: Mapping[str, Any]) -> Places:
    """The places in the context of a running engine; an earlier release stored no nodes."""
    devices = [tuple(group) for group in context["devices"]]
    nodes: list[str] = list(context.get("nodes", ()))
    ranks = [tuple(Place(node, tuple(group)) for node, group in listed) for listed in context.get("ranks", ())]
    size = max(len(devices), len(nodes))
    devices += [()] * (size - len(devices))
    nodes += [LOCAL_NODE] * (size - len(nodes))
    ranks += [()] * (size - len(ranks))
    return shortest(Place(*place) for place in zip(nodes, devices, ranks, strict=True))


# -- problems of an engine's exit --------------------------------------------------------------------------------


#: The code of an engine's exit by its fault.
FAULT_CODES = {
    Fault.HUNG: Code.ENGINE_HUNG,
    Fault.MEMORY_CEILING: Code.ENGINE_OUT_OF_MEMORY,
    Fault.NODE_LOST: Code.NODE_GONE,
    Fault.NODE_LEFT: Code.NODE_LEAVING,
}
#: The hint for an exit by its fault, in place of what the engine's log tells.
FAULT_HINTS = {
    Fault.HUNG: "One of its requests may be the cause. XINFERENCE_HUNG_SECONDS is the time for the answer to a probe.",
    Fault.MEMORY_CEILING: "One of its requests may be the cause. XINFERENCE_ENGINE_MEMORY_MARGIN raises the ceiling.",
    Fault.KERNEL: "The kernel killed it because memory was exhausted: use a smaller context, quantization or model, or "
    "terminate another model.",
    Fault.NODE_LOST: "`xinference cluster info` shows the state of its machine.",
    Fault.NODE_LEFT: "Start `xinference-worker` on its machine again, or add another machine.",
}


def exit_code(exit: Exit | None) -> Code:
    """The code of an engine's exit."""
    fault = exit.fault if exit is not None else None
    return Code.ENGINE_DIED if fault is None else FAULT_CODES.get(fault, Code.ENGINE_DIED)


def exit_problem(uid: str, engine: Engine, exit: Exit) -> Problem:
    """The problem of an engine that was ready and has exited."""
    hint = FAULT_HINTS[exit.fault] if exit.fault is not None else engine.explain(exit.log_tail)
    return Problem(exit_code(exit), f"The engine of {uid} {exit.reason}.", hint=hint, log_tail=exit.log_tail)


def start_problem(problem: Problem, exit: Exit | None) -> Problem:
    """The problem of an engine that did not become ready, with the code and hint of its fault, if it had one."""
    if exit is None or exit.fault is None or problem.code != Code.ENGINE_DIED:
        return problem
    return problem.replace(code=exit_code(exit), hint=FAULT_HINTS[exit.fault])


def with_engine_hint(engine: Engine, problem: Problem) -> Problem:
    """The problem with the hint that the engine derives from the last log lines, unless the problem has a hint."""
    if problem.hint is not None:
        return problem
    return problem.replace(hint=engine.explain(problem.log_tail))


def restart_limit_problem(uid: str, last: Problem, exits: int) -> Problem:
    """The problem of an engine that is not started again; `last` is the problem of its last exit."""
    return Problem(
        Code.ENGINE_KEEPS_DYING,
        f"{last.cause} The engine exited {exits} times in a row, so it is not started again.",
        stage=last.stage,
        hint=last.hint or f"`xinference logs {uid}` shows its output. Launch the model again when the cause is fixed.",
        log_tail=last.log_tail,
    )
