"""One deployment: a task that makes reality equal to its row, from the first fetch to the last exit."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from xinference.control import scaling, weights
from xinference.control.describe import describe, replica_entry
from xinference.control.measure import Used, measure, measurement
from xinference.control.on_demand import OnDemand
from xinference.control.progress import progress
from xinference.control.routing import Route, Target
from xinference.control.stages import Stages, Surroundings
from xinference.engines.base import Placement
from xinference.errors import Problem, not_found
from xinference.hardware.devices import Host, read_host
from xinference.planning.launch_plan import LaunchPlan, Sizing
from xinference.planning.restart import restart_delay
from xinference.planning.settle import Around, settle
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
        self._keeping: asyncio.TaskGroup | None = None
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[int] = set()
        self._added: dict[int, asyncio.Future[None]] = {}
        self._scaling = asyncio.Lock()
        self.on_demand = OnDemand(plan.request, around.settings) if plan.request.on_demand else None
        self._open_plan: LaunchPlan | None = None
        self._load_began = created

    # -- seen by others -------------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        return self.plan.uid

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
            **(self.on_demand.description if self.on_demand else {"on_demand": False}),
        }

    @property
    def instance(self) -> dict[str, Any]:
        """Its entry in ``GET /v1/models/instances``."""
        return {
            **self.description,
            "model_version": self.plan.version.version_id,
            "n_worker": 1,
            "problem": self.problem.to_dict() if self.problem else None,
            "replicas": self.replicas,
            "replica_statuses": self.replicas,
        }

    @property
    def launching(self) -> bool:
        """Whether it is on its way to its first answer."""
        at_first = not self._was_ready if self.on_demand is None else self._open_plan is None
        return self.problem is None and at_first and self._ending is None

    @property
    def progress(self) -> dict[str, Any]:
        """How far its launch is: see `progress.progress`."""
        stage = "ready" if self.ready else self.stage
        failed = (self.problem.stage or "start") if self.problem else None
        return progress(stage, failed, self._around.events.moving(self.plan.uid), self.replicas, time.time())

    @property
    def replicas(self) -> list[dict[str, Any]]:
        """Every replica that there should be, by its number."""
        numbers = sorted(self._keepers) or scaling.positions(self._replicas, self.plan.request.replica)
        waiting = "ERROR" if self.problem else "RECOVERING" if self._was_ready else "CREATING"
        if self.on_demand is not None and not self.on_demand.granted and self.problem is None:
            waiting = "UNLOADED"
        return [
            replica_entry(
                self.plan,
                number,
                self._replicas[number].snapshot if number in self._replicas else None,
                waiting=waiting,
                problem=self._lost.get(number) or self.problem,
                created=self.created,
            )
            for number in numbers
        ]

    @property
    def route(self) -> Route:
        demand = self.on_demand
        closed = demand is not None and demand.leaving is not None
        targets = tuple(
            Target(r.snapshot.replica_id, r.snapshot.base_url, r.snapshot.api_key)
            for number, r in sorted(self._replicas.items())
            if r.snapshot.state is ReplicaState.READY
            and r.snapshot.base_url
            and number not in self._leaving
            and not closed
        )
        return Route(
            uid=self.plan.uid,
            targets=targets,
            stage=self.stage,
            recovering=demand is None and self._was_ready and self.problem is None and self._ending is None,
            on_demand=demand is not None and self.problem is None and self._ending is None,
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
            if self.on_demand is not None:
                await self.on_demand.run(self, adopted)
                return
            if not adopted or self.plan.sizing is None:
                self.plan = await self._stages.weights(self.plan)
            if not adopted:
                self._python = await self._stages.environment(self._engine)
                await self._around.admission.admit(self)
            self._show("LOADING", "start")
            await self._keep_all(adopted)
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
            self._take_sizing(row.position, replica.snapshot.context)
        if adopted:
            self._say("INFO", "start", f"took back {len(adopted)} running replica(s) of an earlier server")
        return adopted

    def _take_sizing(self, position: int, context: Mapping[str, Any]) -> None:
        """The context and devices that a running engine was started with, not what would be chosen now."""
        try:
            sizing = Sizing(**{**context["sizing"], "reasons": ()})
            path, devices = Path(context["path"]), tuple(tuple(group) for group in context["devices"])
        except (KeyError, TypeError):
            return  # written by another version of ours: it is sized anew, which only a restart of the engine uses
        devices = scaling.merged(self.plan.devices, devices, position)
        self.plan = self.plan.with_weights(path, sizing, devices=devices)

    async def _keep_all(self, adopted: Mapping[int, Replica]) -> None:
        """Keep every replica until the deployment ends.

        Raises:
            Problem: the first start failed, or the last replica was given up.
        """
        numbers = scaling.positions(adopted, self.plan.request.replica)
        for number in adopted.keys() - set(numbers):  # an earlier server was told to remove it and did not get to
            await adopted[number].stop()
            self._forget(number, adopted[number])
        try:
            async with asyncio.TaskGroup() as self._keeping:
                for number in numbers:
                    self._keepers[number] = self._keeping.create_task(self._keep(number, adopted.get(number)))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self._keeping = None
        raise next(reversed(self._lost.values()))

    # -- on demand: steps that `OnDemand` takes in this task, and what `Admission` asks and says ------------------

    @property
    def replica_ids(self) -> list[str]:
        """Its engines' names, as the data path counts them."""
        return [replica.snapshot.replica_id for replica in self._replicas.values()]

    async def prepare(self) -> None:
        """Weights and environment here, in a form that can be loaded, and the size known: no memory is taken."""
        plan = replace(self.plan, sizing=None, devices=())
        self.plan = await self._stages.weights(plan)
        self._python = await self._stages.environment(self._engine)
        self._open_plan = replace(plan, path=self.plan.path)

    def rest(self, content: str, *, first: bool = False) -> None:
        """Nothing of it runs; `first`: its launch is over."""
        self._show("UNLOADED", "unloaded")
        kind = "READY" if first else "INFO"
        self._around.events.add(self.plan.uid, kind, "unloaded", content, model=self.description if first else None)

    async def load(self) -> None:
        """Wait until there is room, and take it."""
        self._was_ready, self._load_began = False, time.time()
        self._show("LOADING", "room")
        if self._open_plan is None:
            await self.prepare()
        await self._around.admission.admit(self)
        self._show("LOADING", "start")

    async def keep(self, adopted: Mapping[int, Replica]) -> None:
        """See `_keep_all`."""
        await self._keep_all(adopted)

    def leave(self, why: str) -> None:
        """From now on no request goes to it; it is unloaded once the last answer is sent."""
        assert self.on_demand is not None
        self.on_demand.leave(why)
        self._say("INFO", "unload", why)
        self._show("UNLOADING", "unload")

    async def is_unused(self) -> bool:
        """Whether no answer is on its way from it; asked after the doors are closed."""
        use = self._around.admission.use
        await use.settled()
        return not any(use.at(replica_id) for replica_id in self.replica_ids)

    async def unload(self) -> None:
        """End its engines."""
        await self._let_go_of_all()
        self._keepers.clear()
        self._lost.clear()
        self._used = None

    def sized(self, host: Host, around: Around) -> LaunchPlan:
        """Its plan for such a room; what was planned and told to the user stays as it was told.

        Raises:
            Problem: ``does_not_fit``.
        """
        if self.on_demand is None or self._open_plan is None or self._open_plan.path is None:
            return self.plan
        assert self._stages.shape is not None
        return settle(self._open_plan, self._open_plan.path, self._stages.shape, host, self._stages.told, around)

    def grant(self, plan: LaunchPlan) -> None:
        """The memory of this plan is its own from now on."""
        self.plan = plan
        if self.on_demand is not None:
            self.on_demand.granted = True

    def check_wanted(self) -> None:
        """Refuse to go on waiting for room that nobody wants any more.

        Raises:
            Problem: ``nobody_waits``.
        """
        if self.on_demand is not None and not self.on_demand.waiting:
            raise Problem("nobody_waits", 503, f"Nobody waits for {self.plan.uid} any more.")

    # -- more and fewer replicas ----------------------------------------------------------------------------

    async def add_replica(self, gpu_idx: tuple[int, ...] = (), *, wait_ready: bool = True) -> int:
        """Start one replica more, of the same size as the others; the answer is its number.

        With `wait_ready` once it can be asked. If its first start fails, it is taken back.

        Raises:
            Problem: 400 ``does_not_fit`` or ``no_such_device``, 409 not now, 503 its start failed.
        """
        async with self._scaling:
            self._check_steady()
            group = await self._room_for_one(gpu_idx)
            keeping = self._check_steady()
            number = scaling.lowest_free(self._keepers)
            self._set_plan(scaling.with_replica(self.plan, number, group))
            self._say("INFO", "start", f"replica {number} is added")
            started = self._added[number] = asyncio.get_running_loop().create_future()
            started.add_done_callback(lambda done: done.exception())  # not everybody waits
            self._keepers[number] = keeping.create_task(self._keep(number, None))
            self._keepers[number].add_done_callback(lambda _: self._not_started(number, started))
        if wait_ready:
            await asyncio.shield(started)
        return number

    async def remove_replica(self, number: int) -> int:
        """End one replica; the answer is how many are left.

        Raises:
            Problem: 404, 409 it is the last one or it is not the time.
        """
        async with self._scaling:
            self._check_steady()
            if number not in self._keepers:
                there = ", ".join(map(str, sorted(self._keepers)))
                raise not_found(
                    f"{self.plan.uid} has no replica {number}.", hint=f"There are: {there}.", code="replica_not_found"
                )
            if len(self._keepers) == 1:
                hint = f"`xinference terminate --model-uid {self.plan.uid}` ends the model."
                raise Problem("last_replica", 409, f"{number} is the only replica of {self.plan.uid}.", hint=hint)
            self._set_plan(scaling.without_replica(self.plan, number))
            self._say("INFO", "stop", f"replica {number} is removed")
            await self._drop(number)
            return self.plan.request.replica

    async def _drop(self, number: int) -> None:
        """Out of the routes first, then its keeper, then the engine."""
        self._leaving.add(number)
        self._around.changed()
        keeper = self._keepers.pop(number)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if (replica := self._replicas.get(number)) is not None:
            await replica.stop()
            self._forget(number, replica)
        self._lost.pop(number, None)
        self._leaving.discard(number)
        self._around.changed()

    def _check_steady(self) -> asyncio.TaskGroup:
        if self._keeping is None or self._ending is not None:
            raise Problem(
                "not_running",
                409,
                f"{self.plan.uid} is not running (stage {self.stage}).",
                hint="Its replicas can be changed once it is ready.",
            )
        return self._keeping

    async def _room_for_one(self, gpu_idx: tuple[int, ...]) -> tuple[int, ...]:
        """The devices of one replica more, if it fits beside all that runs."""
        probe = scaling.one_alone(self.plan, gpu_idx)
        assert probe.path is not None
        shape, _ = await asyncio.to_thread(weights.look_at, probe.path, probe.version)
        host = await asyncio.to_thread(read_host)
        probe = settle(probe, probe.path, shape, host, around=self._around.admission.beside(probe))
        scaling.check_same_size(self.plan, probe)
        return probe.devices_of(0)

    def _set_plan(self, plan: LaunchPlan) -> None:
        """The row first: from here on a restart of the server makes the new number."""
        self._around.store.set_request(plan.uid, msgspec.json.encode(plan.request).decode())
        self.plan = plan

    def _not_started(self, number: int, started: asyncio.Future[None]) -> None:
        self._added.pop(number, None)
        if not started.done():
            started.set_exception(
                Problem("launch_cancelled", 409, f"Replica {number} of {self.plan.uid} was ended before it was ready.")
            )

    def _take_back(self, number: int, problem: Problem) -> None:
        """A replica that was added and could not be started is not wanted any more."""
        self._say("ERROR", "failed", f"replica {number} could not be started: {problem.cause}")
        self._set_plan(scaling.without_replica(self.plan, number))
        self._keepers.pop(number, None)
        self._added.pop(number).set_exception(problem)
        self._around.changed()

    # -- one replica ----------------------------------------------------------------------------------------

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
                if position in self._added:
                    self._forget(position, replica)
                    self._take_back(position, self._explained(problem).at("start"))
                    return
                if not self._was_ready:
                    raise self._explained(problem) from None
                died, ended = self._explained(problem), replica.snapshot.exit
            else:
                await self._measure(replica)
                self._became_ready()
                if position in self._added:
                    self._added.pop(position).set_result(None)
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
        if first and self.on_demand is not None:
            self.on_demand.ready_since = time.monotonic()
        took = time.time() - self._load_began
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
        self._around.admission.use.forget(replica.snapshot.replica_id)

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
