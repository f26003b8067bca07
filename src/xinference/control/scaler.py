"""More and fewer replicas of a deployment that runs."""

from __future__ import annotations

import asyncio

from xinference.control import scaling
from xinference.control.replica_set import ReplicaSet
from xinference.control.state import DeploymentState
from xinference.errors import Problem, not_found
from xinference.hardware.devices import read_host
from xinference.planning.settle import settle
from xinference.weights import shape_reader


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
            number = scaling.lowest_free(replicas.keepers)
            state.set_plan(scaling.with_replica(state.plan, number, group))
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
            state.set_plan(scaling.without_replica(state.plan, number))
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
        plan = self._state.plan
        probe = scaling.one_alone(plan, gpu_idx)
        assert probe.path is not None
        shape, _ = await asyncio.to_thread(shape_reader.look_at_all, probe)
        host = await asyncio.to_thread(read_host)
        probe = settle(probe, probe.path, shape, host, around=self._state.around.admission.beside(probe))
        scaling.check_same_size(self._state.plan, probe)
        return probe.devices_of(0)

    def _not_started(self, number: int, started: asyncio.Future[None]) -> None:
        self._replicas.added.pop(number, None)
        if not started.done():
            cause = f"Replica {number} of {self._state.uid} was ended before it was ready."
            started.set_exception(Problem("launch_cancelled", 409, cause))
