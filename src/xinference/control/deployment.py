"""One deployment: a task that makes reality equal to its row, from the first fetch to the last exit."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from xinference.control.describe import describe
from xinference.control.measure import Used, measure, measurement
from xinference.control.routing import Route, Target
from xinference.control.stages import Stages, Surroundings
from xinference.engines.base import Placement
from xinference.errors import Problem
from xinference.planning.launch_plan import LaunchPlan, Sizing
from xinference.planning.restart import restart_delay
from xinference.process.command import EngineCommand, Exit
from xinference.process.replica import Replica, ReplicaState

log = logging.getLogger(__name__)
Ending = Literal["terminate", "stop", "detach"]


class Deployment:
    """Owns the replicas of one row; everything that changes, changes in its task."""

    def __init__(self, plan: LaunchPlan, around: Surroundings, created: float, problem: Problem | None = None) -> None:
        self.plan = plan
        self.created = created
        self.status = "CREATING" if problem is None else "ERROR"
        self.stage = "pending" if problem is None else "failed"
        self.problem = problem
        self._around = around
        self._engine = around.engines[plan.engine]
        self._replicas: dict[int, Replica] = {}
        self._lost: dict[int, Problem] = {}
        self._last_log: Path | None = None
        self._used: Used | None = None
        # Rows of replicas mean that an earlier server had it running: requests may wait for it.
        self._was_ready = bool(around.store.replicas(plan.uid))
        self._ending: Ending | None = None
        self._cancelled = threading.Event()
        self._python: Path | None = None
        self._stages = Stages(around, plan.uid, self._cancelled, self._show)
        self._task: asyncio.Task[None] | None = None

    # -- seen by others -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return any(r.snapshot.state is ReplicaState.READY for r in self._replicas.values())

    @property
    def description(self) -> dict[str, Any]:
        addresses = [r.snapshot.base_url for r in self._replicas.values() if r.snapshot.base_url]
        described = describe(self.plan, status=self.status, stage=self.stage, addresses=addresses, created=self.created)
        used = self._used
        return {
            **described,
            "memory_used_bytes": used.memory if used else None,
            "gpu_memory_used_bytes": used.gpu_memory if used else None,
        }

    @property
    def instance(self) -> dict[str, Any]:
        """Its entry in ``GET /v1/models/instances``."""
        return {
            **self.description,
            "model_version": self.plan.version.version_id,
            "problem": self.problem.to_dict() if self.problem else None,
            "replicas": [
                {
                    "replica_id": r.snapshot.replica_id,
                    "status": r.snapshot.state.name,
                    "engine_pid": r.snapshot.engine_pid,
                    "keeper_pid": r.snapshot.keeper_pid,
                    "address": r.snapshot.base_url,
                }
                for _, r in sorted(self._replicas.items())
            ],
        }

    @property
    def route(self) -> Route:
        targets = tuple(
            Target(r.snapshot.replica_id, r.snapshot.base_url, r.snapshot.api_key)
            for _, r in sorted(self._replicas.items())
            if r.snapshot.state is ReplicaState.READY and r.snapshot.base_url
        )
        return Route(
            uid=self.plan.uid,
            targets=targets,
            stage=self.stage,
            recovering=self._was_ready and self.problem is None and self._ending is None,
            problem=self.problem,
            paths=self._engine.paths(self.plan),
            description=self.description,
            adapters=self._engine.lora_names(self.plan),
            request_limits=self.plan.request.request_limits,
        )

    @property
    def log_paths(self) -> list[Path]:
        """The output of its running replicas, or else of the last one."""
        running = [r.snapshot.log_path for _, r in sorted(self._replicas.items())]
        return running or ([self._last_log] if self._last_log else [])

    # -- its life -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the owner task, unless the deployment has failed already."""
        if self.problem is None:
            self._task = asyncio.create_task(self._run(), name=f"deployment {self.plan.uid}")

    async def end(self, how: Ending) -> None:
        """End the task: ``terminate`` and ``stop`` end the engines, ``detach`` leaves them for a successor."""
        self._ending = how
        self._cancelled.set()
        if how == "detach":  # before the task is cancelled: that would end an engine which is still loading
            await self._let_go_of_all()
        else:
            self._show("TERMINATING", "stop")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._let_go_of_all()

    async def finish_termination(self) -> None:
        """End what an earlier server was told to terminate and did not get to."""
        await self._adopt()
        await self.end("terminate")

    async def _run(self) -> None:
        try:
            adopted = await self._adopt()
            if not adopted or self.plan.sizing is None:
                self.plan = await self._stages.weights(self.plan)
            if not adopted:
                self._python = await self._stages.environment(self._engine)
            self._show("LOADING", "start")
            await asyncio.gather(*(self._keep(i, adopted.get(i)) for i in range(self.plan.request.replica)))
        except Problem as problem:
            if self._ending is None:
                await self._fail(problem)
        except Exception as error:
            # The owner's last line: a defect of ours must end as a FAILED row, not as a silent dead task.
            log.exception("deployment %s", self.plan.uid)
            await self._fail(Problem("internal_error", 500, f"A defect in xinference: {error!r}.", stage=self.stage))

    async def _adopt(self) -> dict[int, Replica]:
        """The replicas that an earlier server left running for us."""
        adopted: dict[int, Replica] = {}
        for row in self._around.store.replicas(self.plan.uid):
            replica = await Replica.adopt(row.replica_id, self._around.settings)
            if replica is None or row.position in adopted:
                self._around.store.remove_replica(row.replica_id)
                continue
            self._replicas[row.position] = adopted[row.position] = replica
            self._take_sizing(replica.snapshot.context)
        if adopted:
            self._say("INFO", "start", f"took back {len(adopted)} running replica(s) of an earlier server")
        return adopted

    def _take_sizing(self, context: Mapping[str, Any]) -> None:
        """The context and devices that a running engine was started with, not what would be chosen now."""
        try:
            sizing = Sizing(**{**context["sizing"], "reasons": ()})
            path, devices = Path(context["path"]), tuple(tuple(group) for group in context["devices"])
        except (KeyError, TypeError):
            return  # written by another version of ours: it is sized anew, which only a restart of the engine uses
        self.plan = self.plan.with_weights(path, sizing, devices=devices)

    async def _keep(self, position: int, replica: Replica | None) -> None:
        """Keep one replica running, with restarts, until it is given up or the deployment ends."""
        quick_deaths = 0
        while True:
            if replica is None:
                # An engine that was taken back runs in what an earlier release installed; it need not wait for ours.
                self._python = self._python or await self._stages.environment(self._engine)
                replica = self._start(position)
            try:
                await replica.wait_ready()
            except Problem as problem:
                if not self._was_ready:
                    raise self._explained(problem) from None
                died, ended = self._explained(problem), replica.snapshot.exit
            else:
                await self._measure(replica)
                self._became_ready()
                ended = await replica.wait_exited()
                died = self._death(ended)
            self._forget(position, replica)
            replica = None
            quick_deaths = quick_deaths + 1 if self._was_quick(ended) else 1
            delay = restart_delay(quick_deaths, self._around.settings)
            if delay is None:
                self._give_up(position, died, quick_deaths)
                return
            self._say("WARNING", "restart", f"{died.cause} Starting it again{f' in {delay:g} s' if delay else ''}.")
            self._show("READY" if self.ready else "RECOVERING", "restart")
            await asyncio.sleep(delay)

    def _start(self, position: int) -> Replica:
        settings, store = self._around.settings, self._around.store
        replica_id = f"r{secrets.token_hex(5)}"
        store.add_replica(replica_id, self.plan.uid, position)
        self._say("INFO", "start", f"starting {self.plan.engine}")
        try:
            replica = Replica.start(replica_id, self._command(position), settings, log_path=self._log_path(replica_id))
        except BaseException:
            store.remove_replica(replica_id)
            raise
        self._replicas[position] = replica
        return replica

    def _command(self, position: int) -> EngineCommand:
        assert self.plan.sizing is not None and self._python is not None
        command = self._engine.command(
            self.plan, secrets.token_urlsafe(32), Placement(self._python, self.plan.devices_of(position))
        )
        sizing, devices = asdict(self.plan.sizing), self.plan.devices
        context = {"uid": self.plan.uid, "path": str(self.plan.path), "sizing": sizing, "devices": devices}
        # What the engine needs of us wins: its key, its devices, its offline mode.
        env = {**self.plan.request.envs, **command.env}
        return EngineCommand(**{**vars(command), "env": env, "context": context})

    async def _measure(self, replica: Replica) -> None:
        """Keep what a fresh engine really takes; one that was taken back has a cache full of other things."""
        pid = replica.snapshot.engine_pid
        used = await asyncio.to_thread(measure, pid) if pid is not None else None
        if used is None:
            return
        self._used = used
        kept = None if self._was_ready else measurement(self.plan, used)
        if kept is not None:
            self._around.store.add_measurement(kept)

    def _became_ready(self) -> None:
        first, self._was_ready = not self._was_ready, True
        self._show("READY", "ready")
        took = time.time() - self.created
        content = f"ready after {took:.1f} s" if first else "ready again"
        self._around.events.add(self.plan.uid, "READY", "ready", content, model=self.description)

    def _was_quick(self, ended: Exit | None) -> bool:
        return ended is None or ended.ran_seconds < self._around.settings.quick_death_seconds

    def _give_up(self, position: int, died: Problem, deaths: int) -> None:
        problem = Problem(
            "engine_keeps_dying",
            503,
            f"{died.cause} It died {deaths} times in a row, so it is not started again.",
            stage=died.stage,
            hint=died.hint or f"`xinference logs {self.plan.uid}` shows its output; launch it again once it is mended.",
            log_tail=died.log_tail,
        )
        self._lost[position] = problem
        self._say("ERROR", "failed", problem.cause)
        if len(self._lost) == self.plan.request.replica:
            raise problem

    async def _fail(self, problem: Problem) -> None:
        problem = problem.at(self.stage)
        self.problem = problem
        await self._let_go_of_all()
        self._around.store.set_problem(self.plan.uid, problem)
        self._show("ERROR", "failed")
        self._around.events.add(self.plan.uid, "FAILED", problem.stage or "failed", problem.cause, problem=problem)

    async def _let_go_of_all(self) -> None:
        replicas = list(self._replicas.items())
        if self._ending == "detach":
            await asyncio.gather(*(r.detach() for _, r in replicas))
            return
        await asyncio.gather(*(r.stop() for _, r in replicas))
        for position, replica in replicas:
            self._forget(position, replica)

    def _forget(self, position: int, replica: Replica) -> None:
        self._replicas.pop(position, None)
        self._last_log = replica.snapshot.log_path
        self._around.store.remove_replica(replica.snapshot.replica_id)

    # -- words ----------------------------------------------------------------------------------------------

    def _death(self, ended: Exit) -> Problem:
        hint = self._engine.explain(ended.log_tail)
        return Problem(
            "engine_died", 503, f"The engine of {self.plan.uid} {ended.reason}.", hint=hint, log_tail=ended.log_tail
        )

    def _explained(self, problem: Problem) -> Problem:
        if problem.hint is not None:
            return problem
        return Problem(
            problem.code,
            problem.status,
            problem.cause,
            stage=problem.stage,
            hint=self._engine.explain(problem.log_tail),
            log_tail=problem.log_tail,
        )

    def _show(self, status: str, stage: str) -> None:
        self.status, self.stage = status, stage
        self._around.changed()

    def _say(self, event_type: str, stage: str, content: str) -> None:
        self._around.events.add(self.plan.uid, event_type, stage, content)

    def _log_path(self, replica_id: str) -> Path:
        return self._around.settings.log_dir / f"{replica_id}.log"
