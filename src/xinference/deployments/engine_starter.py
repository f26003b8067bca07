"""Starts an engine, records its memory use and explains its exit."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from xinference.config import Settings
from xinference.deployments.measurement import Used, measure
from xinference.engines.base import Engine, Placement
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.plan import LaunchPlan, SizedPlan, Sizing
from xinference.planning import replicas
from xinference.process.command import EngineCommand, Exit
from xinference.process.replica import Replica
from xinference.process.snapshot import ReplicaSnapshot


class ReplicaProcess(Protocol):
    """What a deployment uses of a `Replica`."""

    @property
    def snapshot(self) -> ReplicaSnapshot: ...

    async def wait_ready(self) -> None:
        """See `Replica.wait_ready`."""
        ...

    async def wait_exited(self) -> Exit:
        """See `Replica.wait_exited`."""
        ...

    async def stop(self) -> Exit | None:
        """See `Replica.stop`."""
        ...

    async def detach(self) -> None:
        """See `Replica.detach`."""
        ...


class Starter(Protocol):
    """Starts and takes back engines; `changed` is called after each new snapshot of a replica."""

    def start(
        self, replica_id: str, plan: SizedPlan, number: int, python: Path, changed: Callable[[], None]
    ) -> ReplicaProcess:
        """The replica of `plan` with this number, run by this interpreter.

        Raises:
            Problem: it can't be started.
        """
        ...

    async def adopt(self, replica_id: str, changed: Callable[[], None]) -> ReplicaProcess | None:
        """A replica that an earlier server left running; None: it is not there any more."""
        ...

    async def measure(self, replica: ReplicaProcess) -> Used | None:
        """What a replica's processes hold; None: it can't be measured."""
        ...


class EngineStarter:
    """A `Starter` of real engines."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings

    def start(
        self, replica_id: str, plan: SizedPlan, number: int, python: Path, changed: Callable[[], None]
    ) -> ReplicaProcess:
        """See `Starter.start`."""
        command = engine_command(self._engine, plan, number, python)
        log_path = self._settings.log_dir / f"{replica_id}.log"
        return Replica.start(replica_id, command, self._settings, log_path=log_path, changed=changed)

    async def adopt(self, replica_id: str, changed: Callable[[], None]) -> ReplicaProcess | None:
        """See `Starter.adopt`."""
        return await Replica.adopt(replica_id, self._settings, changed)

    async def measure(self, replica: ReplicaProcess) -> Used | None:
        """See `Starter.measure`."""
        pid = replica.snapshot.engine_pid
        return None if pid is None else await asyncio.to_thread(measure, pid)


def engine_command(engine: Engine, plan: SizedPlan, number: int, python: Path) -> EngineCommand:
    """What to run for the replica with this number, with the context that `sized_by` reads back."""
    placement = Placement(python, plan.devices_of(number))
    command = engine.command(plan, secrets.token_urlsafe(32), placement)
    sizing, devices = asdict(plan.sizing), plan.devices
    context = {"uid": plan.uid, "path": str(plan.path), "sizing": sizing, "devices": devices}
    # What the engine needs of us wins: its key, its devices, its offline mode.
    env = {**plan.request.envs, **command.env}
    return EngineCommand(**{**vars(command), "env": env, "context": context})


def sized_by(plan: LaunchPlan, number: int, context: Mapping[str, Any]) -> LaunchPlan:
    """The plan with the context and devices that a running engine was started with, not what would be chosen now."""
    try:
        sizing = Sizing(**{**context["sizing"], "reasons": ()})
        path, devices = Path(context["path"]), tuple(tuple(group) for group in context["devices"])
    except (KeyError, TypeError):
        return plan  # written by another version of ours: it is sized anew, which only a restart of the engine uses
    launch, known = (plan.launch, plan.devices) if isinstance(plan, SizedPlan) else (plan, ())
    return SizedPlan(launch, path, sizing, replicas.merged(known, devices, number))


# -- the death of an engine, in words -----------------------------------------------------------------------------


def death(uid: str, engine: Engine, ended: Exit) -> Problem:
    """An engine that was ready and ended."""
    hint = engine.explain(ended.log_tail)
    return Problem(Code.ENGINE_DIED, f"The engine of {uid} {ended.reason}.", hint=hint, log_tail=ended.log_tail)


def explained(engine: Engine, problem: Problem) -> Problem:
    """The same with what the engine's last words mean."""
    if problem.hint is not None:
        return problem
    return problem.replace(hint=engine.explain(problem.log_tail))


def given_up(uid: str, died: Problem, deaths: int) -> Problem:
    """Why an engine is not started again."""
    return Problem(
        Code.ENGINE_KEEPS_DYING,
        f"{died.cause} It died {deaths} times in a row, so it is not started again.",
        stage=died.stage,
        hint=died.hint or f"`xinference logs {uid}` shows its output; launch it again once it is mended.",
        log_tail=died.log_tail,
    )
