"""The replicas that a deployment keeps: each runs, with restarts, until it is given up or ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from xinference.control import scaling, view
from xinference.control.drain import drain
from xinference.control.starter import Starter
from xinference.control.state import DeploymentState
from xinference.errors import Problem
from xinference.planning.restart import restart_delay
from xinference.process.replica import Replica, ReplicaState


class ReplicaSet:
    """Owns the replicas of one deployment, by their numbers."""

    def __init__(self, state: DeploymentState, interpreter: Callable[[], Awaitable[Path]]) -> None:
        self._state = state
        self._around = state.around
        self._interpreter = interpreter
        self._starter = Starter(state)
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
        return sorted(self.keepers) or scaling.positions(self.running, self._state.plan.request.replica)

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
        numbers = scaling.positions(adopted, self._state.plan.request.replica)
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
        self._around.events.add(state.uid, "READY", "ready", content, model=view.description(state, self))

    def _give_up(self, position: int, problem: Problem) -> None:
        self.lost[position] = problem
        self._state.say("ERROR", "failed", problem.cause)

    def _take_back(self, number: int, problem: Problem) -> None:
        """A replica that was added and could not be started is not wanted any more."""
        self._state.say("ERROR", "failed", f"replica {number} could not be started: {problem.cause}")
        self._state.set_plan(scaling.without_replica(self._state.plan, number))
        self.keepers.pop(number, None)
        self.added.pop(number).set_exception(problem)
        self._around.changed()
