"""How an engine of a deployment is started, what it then takes, and what its death means."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xinference.deployments.measurement import measure, measurement
from xinference.deployments.state import DeploymentState
from xinference.engines.base import Placement
from xinference.errors import Problem
from xinference.launch.plan import SizedPlan, Sizing
from xinference.planning import replicas
from xinference.process.command import EngineCommand, Exit
from xinference.process.replica import Replica


class EngineStarter:
    """Starts the engines of one deployment."""

    def __init__(self, state: DeploymentState) -> None:
        self._state = state

    def start(self, position: int, python: Path) -> Replica:
        """The replica at `position`; its row is written first, so that a successor finds what it started."""
        settings, store = self._state.around.settings, self._state.around.store
        replica_id = f"r{secrets.token_hex(5)}"
        store.add_replica(replica_id, self._state.uid, position)
        self._state.say("INFO", "start", f"starting {self._state.plan.engine}")
        log_path = settings.log_dir / f"{replica_id}.log"
        try:
            return Replica.start(replica_id, self._command(position, python), settings, log_path=log_path)
        except BaseException:
            store.remove_replica(replica_id)
            raise

    def _command(self, position: int, python: Path) -> EngineCommand:
        plan = self._state.sized
        placement = Placement(python, plan.devices_of(position))
        command = self._state.engine.command(plan, secrets.token_urlsafe(32), placement)
        sizing, devices = asdict(plan.sizing), plan.devices
        context = {"uid": plan.uid, "path": str(plan.path), "sizing": sizing, "devices": devices}
        # What the engine needs of us wins: its key, its devices, its offline mode.
        env = {**plan.request.envs, **command.env}
        return EngineCommand(**{**vars(command), "env": env, "context": context})

    def take_sizing(self, position: int, context: Mapping[str, Any]) -> None:
        """The context and devices that a running engine was started with, not what would be chosen now."""
        try:
            sizing = Sizing(**{**context["sizing"], "reasons": ()})
            path, devices = Path(context["path"]), tuple(tuple(group) for group in context["devices"])
        except (KeyError, TypeError):
            return  # written by another version of ours: it is sized anew, which only a restart of the engine uses
        plan = self._state.plan
        launch, known = (plan.launch, plan.devices) if isinstance(plan, SizedPlan) else (plan, ())
        self._state.plan = SizedPlan(launch, path, sizing, replicas.merged(known, devices, position))

    async def measure(self, replica: Replica) -> None:
        """Keep what a fresh engine really takes; one that was taken back has a cache full of other things."""
        pid = replica.snapshot.engine_pid
        used = await asyncio.to_thread(measure, pid) if pid is not None else None
        if used is None:
            return
        self._state.used = used
        if not self._state.was_ready:
            self._state.around.store.add_measurement(measurement(self._state.sized, used))

    # -- its death ------------------------------------------------------------------------------------------

    def death(self, ended: Exit) -> Problem:
        """An engine that was ready and ended."""
        cause = f"The engine of {self._state.uid} {ended.reason}."
        hint = self._state.engine.explain(ended.log_tail)
        return Problem("engine_died", 503, cause, hint=hint, log_tail=ended.log_tail)

    def explained(self, problem: Problem) -> Problem:
        """The same with what the engine's last words mean."""
        if problem.hint is not None:
            return problem
        return Problem(
            problem.code,
            problem.status,
            problem.cause,
            stage=problem.stage,
            hint=self._state.engine.explain(problem.log_tail),
            log_tail=problem.log_tail,
        )

    def was_quick(self, ended: Exit | None) -> bool:
        """Whether it died too early to have been of use."""
        return ended is None or ended.ran_seconds < self._state.around.settings.quick_death_seconds

    def given_up(self, died: Problem, deaths: int) -> Problem:
        """Why it is not started again."""
        return Problem(
            "engine_keeps_dying",
            503,
            f"{died.cause} It died {deaths} times in a row, so it is not started again.",
            stage=died.stage,
            hint=died.hint
            or f"`xinference logs {self._state.uid}` shows its output; launch it again once it is mended.",
            log_tail=died.log_tail,
        )
