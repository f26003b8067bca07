"""A deployment that is loaded when it is asked for and leaves again: who waits for it, and the life of one stay."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from xinference.config import Settings
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest

if TYPE_CHECKING:
    from xinference.deployments.deployment import Deployment
    from xinference.process.replica import Replica


class OnDemand:
    """Loads and unloads one deployment, in its task; everybody else asks and tells."""

    def __init__(self, request: LaunchRequest, settings: Settings) -> None:
        pinned_by_default = 0.0 if request.pin else settings.on_demand_ttl_seconds
        self.ttl = pinned_by_default if request.ttl is None else request.ttl
        self.pinned = request.pin
        self.priority = request.priority
        self.waiting = 0
        """Requests that wait for it now."""
        self.granted = False
        """Whether it holds memory, or is about to."""
        self.leaving: str | None = None
        """Why it leaves: from then on no request goes to it."""
        self.ready_since = time.monotonic()
        self.refusals = 0
        """How many loads have come to nothing; `refused` is why the last one did."""
        self.refused: Problem | None = None
        self._limit = settings.on_demand_queue
        self._failures_allowed = settings.restart_limit
        self._failures = 0
        self._asked = asyncio.Event()
        self._told = asyncio.Event()

    # -- for those who ask ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Be one of those who wait for it while the block runs.

        Raises:
            Problem: 429 ``too_many_waiting``.
        """
        if self.waiting >= self._limit:
            raise Problem(
                "too_many_waiting",
                429,
                f"{self.waiting} requests wait for the model {name} to be loaded, and no more may.",
                hint="Ask again later; XINFERENCE_ON_DEMAND_QUEUE is the limit.",
            )
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def ask(self) -> None:
        """Somebody waits for it."""
        self._asked.set()

    def leave(self, why: str) -> None:
        """Give the memory back once the last answer is sent; the caller publishes a table without it."""
        if self.leaving is None:
            self.leaving = why
            self._told.set()

    @property
    def description(self) -> Mapping[str, Any]:
        """What it adds to a model's entry."""
        return {"on_demand": True, "ttl": self.ttl, "pin": self.pinned, "priority": self.priority}

    # -- in the deployment's task ---------------------------------------------------------------------------

    async def run(self, deployment: Deployment, adopted: Mapping[int, Replica]) -> None:
        """One stay after the other, for ever.

        Raises:
            Problem: the weights or the environment can't be had, or its engine failed too often.
        """
        if not adopted:
            await deployment.prepare()
            deployment.rest("ready: the first request loads it", first=True)
        while True:
            if not adopted:
                await self._asked.wait()
                self._asked.clear()
                if not self.waiting:
                    continue
            try:
                await self._stay(deployment, adopted)
            except Problem as problem:
                await self._refuse(deployment, problem)
            adopted = {}

    async def _stay(self, deployment: Deployment, adopted: Mapping[int, Replica]) -> None:
        """From the first request to the last answer."""
        self._told.clear()
        self.granted, self.leaving = bool(adopted), None
        if not adopted:
            await deployment.load()
        keeping = asyncio.create_task(deployment.keep(adopted))
        told = asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({keeping, told}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                keeping.result()  # it ends only by a Problem
            await deployment.drain()
        finally:
            for task in (keeping, told):
                task.cancel()
            await asyncio.gather(keeping, told, return_exceptions=True)
        self._failures = 0
        await deployment.unload()
        self.granted, self.leaving = False, None
        deployment.rest("unloaded")

    async def _refuse(self, deployment: Deployment, problem: Problem) -> None:
        """Tell those who wait that this load came to nothing; the next request tries again, within limits."""
        await deployment.unload()
        self.granted, self.leaving = False, None
        if problem.code == "nobody_waits":  # whoever has come since then is not refused, but asks for the next load
            deployment.rest("nobody waits for it any more")
            return
        if problem.code not in ("no_room", "does_not_fit"):
            self._failures += 1
            if self._failures > self._failures_allowed:
                raise problem
        self.refused = Problem(
            problem.code,
            503,
            problem.cause,
            stage=problem.stage,
            hint=problem.hint,
            log_tail=problem.log_tail,
        )
        self.refusals += 1
        # Those who have asked are told by this; only who comes later asks for another load.
        self._asked.clear()
        deployment.rest(f"not loaded: {problem.cause}")
