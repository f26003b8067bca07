"""The replicas that a deployment keeps: each runs, with restarts, until it is given up or ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from xinference.deployments import views
from xinference.deployments.drain import drain
from xinference.deployments.engine_starter import EngineStarter
from xinference.deployments.state import DeploymentState
from xinference.errors import Problem, not_found
from xinference.hardware.devices import read_host
from xinference.planning.occupancy import available
from xinference.planning.replicas import (
    check_same_size,
    lowest_free,
    one_alone,
    positions,
    with_replica,
    without_replica,
)
from xinference.planning.restart import restart_delay
from xinference.planning.sizing import size_launch
from xinference.process.replica import Replica, ReplicaState
from xinference.weights import shape_reader


class ReplicaSet:
    """Owns the replicas of one deployment, by their numbers."""

    def __init__(self, state: DeploymentState, interpreter: Callable[[], Awaitable[Path]]) -> None:
        self._state = state
        self._around = state.around
        self._interpreter = interpreter
        self._starter = EngineStarter(state)
        self.running: dict[int, Replica] = {}
        self.lost: dict[int, Problem] = {}
        """Those that are not started again, and why."""
        self.keepers: dict[int, asyncio.Task[None]] = {}
        """The task of each one that there should be."""
        self.keeping: asyncio.TaskGroup | None = None
        """Where keepers can be added; None: nothing is kept."""
        self.leaving: set[int] = set()
        """Those that no request goes to any more."""
        self.added: dict[int, asyncio.Future[None]] = {}
        """Those that somebody added and that have not been ready yet."""
        self._last_log: Path | None = None

    # -- seen by others -------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return any(r.snapshot.state is ReplicaState.READY for r in self.running.values())

    @property
    def ids(self) -> list[str]:
        """Its engines' names, as the data path counts them."""
        return [replica.snapshot.replica_id for replica in self.running.values()]

    @property
    def addresses(self) -> list[str]:
        """Where its engines answer."""
        return [r.snapshot.base_url for r in self.running.values() if r.snapshot.base_url]

    @property
    def numbers(self) -> list[int]:
        """Those that there should be."""
        return sorted(self.keepers) or positions(self.running, self._state.plan.request.replica)

    @property
    def log_paths(self) -> list[Path]:
        """The output of its running replicas, or else of the last one."""
        running = [r.snapshot.log_path for _, r in sorted(self.running.items())]
        return running or ([self._last_log] if self._last_log else [])

    # -- all of them ----------------------------------------------------------------------------------------

    async def adopt(self) -> dict[int, Replica]:
        """The replicas that an earlier server left running for us."""
        adopted: dict[int, Replica] = {}
        for row in self._around.store.replicas(self._state.uid):
            replica = await Replica.adopt(row.replica_id, self._around.settings)
            if replica is None or row.position in adopted:
                self._around.store.remove_replica(row.replica_id)
                continue
            self.running[row.position] = adopted[row.position] = replica
            self._starter.take_sizing(row.position, replica.snapshot.context)
        if adopted:
            self._state.say("INFO", "start", f"took back {len(adopted)} running replica(s) of an earlier server")
        return adopted

    async def keep(self, adopted: Mapping[int, Replica]) -> None:
        """Keep every replica until the deployment ends.

        Raises:
            Problem: the first start failed, or the last replica was given up.
        """
        numbers = positions(adopted, self._state.plan.request.replica)
        for number in adopted.keys() - set(numbers):  # an earlier server was told to remove it and did not get to
            await adopted[number].stop()
            self.forget(number, adopted[number])
        try:
            async with asyncio.TaskGroup() as self.keeping:
                for number in numbers:
                    self.keepers[number] = self.keeping.create_task(self.keep_one(number, adopted.get(number)))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self.keeping = None
        raise next(reversed(self.lost.values()))

    async def let_go(self) -> None:
        """End all of them, or leave them for the next server if that is how the deployment ends."""
        replicas = list(self.running.items())
        if self._state.ending == "detach":
            await asyncio.gather(*(r.detach() for _, r in replicas))
            return
        await asyncio.gather(*(r.stop() for _, r in replicas))
        for position, replica in replicas:
            self.forget(position, replica)

    async def clear(self) -> None:
        """End all of them; none is there as before the first start."""
        await self.let_go()
        for kept in (self.keepers, self.lost, self.leaving):
            kept.clear()

    # -- one of them ----------------------------------------------------------------------------------------

    async def keep_one(self, position: int, replica: Replica | None) -> None:
        """Keep one replica running, with restarts, until it is given up or the deployment ends."""
        quick_deaths = 0
        while True:
            if replica is None:
                # An engine that was taken back runs in what an earlier release installed; it need not wait for ours.
                python = await self._interpreter()
                replica = self.running[position] = self._starter.start(position, python)
            try:
                await replica.wait_ready()
            except Problem as problem:
                died, ended = self._starter.explained(problem), replica.snapshot.exit
                if position in self.added and position not in self.leaving:
                    self.forget(position, replica)
                    self._take_back(position, died.at("start"))
                    return
                if not self._state.was_ready and position not in self.leaving:
                    raise died from None
            else:
                await self._starter.measure(replica)
                self._became_ready()
                if position in self.added:
                    self.added.pop(position).set_result(None)
                ended = await replica.wait_exited()
                died = self._starter.death(ended)
            self.forget(position, replica)
            replica = None
            if position in self.leaving:
                return
            quick_deaths = quick_deaths + 1 if self._starter.was_quick(ended) else 1
            delay = restart_delay(quick_deaths, self._around.settings)
            if delay is None:
                self._give_up(position, self._starter.given_up(died, quick_deaths))
                return
            again = f"Starting it again{f' in {delay:g} s' if delay else ''}."
            self._state.say("WARNING", "restart", f"{died.cause} {again}")
            self._state.show("READY" if self.ready else "RECOVERING", "restart")
            await asyncio.sleep(delay)

    def close(self, number: int) -> None:
        """From now on no request goes to it."""
        self.leaving.add(number)
        self._around.changed()

    async def drop(self, number: int) -> None:
        """End one that was closed, after its last answer if that is sent in time: first its keeper, then the engine."""
        keeper = self.keepers[number]
        if (replica := self.running.get(number)) is not None:
            one = (replica.snapshot.replica_id,)
            if not await drain(self._around.admission.use, lambda: one, self._around.settings.drain_seconds):
                self._state.say("WARNING", "stop", f"replica {number} is ended with answers on their way")
        if self._state.ending is not None or self.keepers.get(number) is not keeper:  # all of them end, or have
            return
        del self.keepers[number]
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        if (replica := self.running.get(number)) is not None:
            await replica.stop()
            self.forget(number, replica)
        self.lost.pop(number, None)
        self.leaving.discard(number)
        self._around.changed()

    def forget(self, position: int, replica: Replica) -> None:
        """It is gone."""
        self.running.pop(position, None)
        self._last_log = replica.snapshot.log_path
        self._around.store.remove_replica(replica.snapshot.replica_id)
        self._around.admission.use.forget(replica.snapshot.replica_id)

    def _became_ready(self) -> None:
        state = self._state
        first, state.was_ready = not state.was_ready, True
        state.show("READY", "ready")
        if first and state.on_demand is not None:
            state.on_demand.ready_since = time.monotonic()
        content = f"ready after {time.time() - state.load_began:.1f} s" if first else "ready again"
        self._around.events.add(state.uid, "READY", "ready", content, model=views.description(state, self))

    def _give_up(self, position: int, problem: Problem) -> None:
        self.lost[position] = problem
        self._state.say("ERROR", "failed", problem.cause)

    def _take_back(self, number: int, problem: Problem) -> None:
        """A replica that was added and could not be started is not wanted any more."""
        self._state.say("ERROR", "failed", f"replica {number} could not be started: {problem.cause}")
        self._state.set_plan(without_replica(self._state.sized, number))
        self.keepers.pop(number, None)
        self.added.pop(number).set_exception(problem)
        self._around.changed()


class Scaler:
    """Adds and removes replicas of one deployment, one after the other."""

    def __init__(self, state: DeploymentState, replicas: ReplicaSet) -> None:
        self._state = state
        self._replicas = replicas
        self._turn = asyncio.Lock()

    async def add(self, gpu_idx: tuple[int, ...] = (), *, wait_ready: bool = True) -> int:
        """Start one replica more, of the same size as the others; the answer is its number.

        With `wait_ready` once it can be asked. If its first start fails, it is taken back.

        Raises:
            Problem: 400 ``does_not_fit`` or ``no_such_device``, 409 not now, 503 its start failed.
        """
        state, replicas = self._state, self._replicas
        async with self._turn:
            self._check_steady()
            group = await self._room_for_one(gpu_idx)
            keeping = self._check_steady()
            number = lowest_free(replicas.keepers)
            state.set_plan(with_replica(state.sized, number, group))
            state.say("INFO", "start", f"replica {number} is added")
            started = replicas.added[number] = asyncio.get_running_loop().create_future()
            started.add_done_callback(lambda done: done.exception())  # not everybody waits
            replicas.keepers[number] = keeping.create_task(replicas.keep_one(number, None))
            replicas.keepers[number].add_done_callback(lambda _: self._not_started(number, started))
        if wait_ready:
            await asyncio.shield(started)
        return number

    async def remove(self, number: int) -> int:
        """End one replica after its last answer, for which it has `drain_seconds`; the answer is how many are left.

        Raises:
            Problem: 404, 409 it is the last one or it is not the time.
        """
        state, keepers = self._state, self._replicas.keepers
        async with self._turn:
            self._check_steady()
            staying = sorted(keepers.keys() - self._replicas.leaving)
            if number not in staying:
                there = ", ".join(map(str, staying))
                raise not_found(
                    f"{state.uid} has no replica {number}.", hint=f"There are: {there}.", code="replica_not_found"
                )
            if len(staying) == 1:
                hint = f"`xinference terminate --model-uid {state.uid}` ends the model."
                raise Problem("last_replica", 409, f"{number} is the only replica of {state.uid}.", hint=hint)
            state.set_plan(without_replica(state.sized, number))
            state.say("INFO", "stop", f"replica {number} is removed")
            left = state.plan.request.replica
            self._replicas.close(number)
        # Not in turn: others come and go while it answers its last requests.
        await self._replicas.drop(number)
        return left

    def _check_steady(self) -> asyncio.TaskGroup:
        if self._replicas.keeping is None or self._state.ending is not None:
            raise Problem(
                "not_running",
                409,
                f"{self._state.uid} is not running (stage {self._state.stage}).",
                hint="Its replicas can be changed once it is ready.",
            )
        return self._replicas.keeping

    async def _room_for_one(self, gpu_idx: tuple[int, ...]) -> tuple[int, ...]:
        """The devices of one replica more, if it fits beside all that runs."""
        plan, engine = self._state.sized, self._state.engine
        launch = one_alone(plan, gpu_idx)
        extra = engine.extra_weight_files(launch, plan.path)
        shape, _ = await asyncio.to_thread(shape_reader.read_shape, plan.path, plan.version, extra)
        host = await asyncio.to_thread(read_host)
        there = available(host, self._state.around.admission.beside(launch))
        probe = size_launch(launch, plan.path, shape, there, engine.memory)
        check_same_size(plan, probe)
        return probe.devices_of(0)

    def _not_started(self, number: int, started: asyncio.Future[None]) -> None:
        self._replicas.added.pop(number, None)
        if not started.done():
            cause = f"Replica {number} of {self._state.uid} was ended before it was ready."
            started.set_exception(Problem("launch_cancelled", 409, cause))
