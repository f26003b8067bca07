"""Watches one engine: until it answers for the first time, and from then on until it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.process.command import Exit, ProgressProbe
from xinference.process.hang import EngineTraffic, HangWatch
from xinference.process.probe import Endpoint, ProbeResult, probe
from xinference.process.probe_session import probe_session
from xinference.process.progress_watch import Limits
from xinference.process.snapshot import ReplicaSnapshot
from xinference.process.work_meter import WorkMeter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guard:
    """The limits within which an engine may run."""

    traffic: EngineTraffic | None = None
    """None: the engine's progress is not watched."""
    progress: ProgressProbe | None = None
    """The same."""
    starting_ceiling: int = 0
    """Bytes of memory at which the engine is ended before it is ready; 0: no ceiling."""
    ceiling: int = 0
    """The same once it is ready."""


NO_GUARD = Guard()


class StartWatch:
    """Probes a starting engine, and describes its failure by what it has answered."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._answered = False
        """The engine has opened its port."""

    async def becomes_healthy(self, seconds: float) -> bool:
        """Probe every 50 ms at first, every 500 ms later; False: the engine was not healthy within `seconds`."""
        pause = 0.05
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), probe_session() as session:
                while (result := await probe(self._endpoint, session)) is not ProbeResult.HEALTHY:
                    self._answered |= result is ProbeResult.LOADING
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.03, 0.5)
                return True
        return False

    def timeout_problem(self, seconds: float) -> Problem:
        """The problem of an engine that was not healthy within `seconds`."""
        fault = "did not report health" if self._answered else "did not open its port"
        return Problem(
            Code.ENGINE_START_TIMEOUT,
            f"The engine {fault} within {seconds:g} seconds.",
            stage="health",
            hint="Increase XINFERENCE_START_SECONDS.",
        )

    def death_problem(self, exit: Exit) -> Problem:
        """The problem of an engine that has exited before it was ready."""
        stage = "health" if self._answered else "start"
        return Problem(Code.ENGINE_DIED, f"The engine {exit.reason} before it was ready.", stage=stage)


async def wait_until_hung(
    snapshot: ReplicaSnapshot, endpoint: Endpoint, guard: Guard, settings: Settings
) -> str | None:
    """Watch a ready engine; returns the detail of its `Exit` when it hangs, or None if its progress is not watched."""
    if guard.traffic is None or guard.progress is None or not settings.hung_seconds or snapshot.engine_pid is None:
        return None
    limits = Limits(settings.probe_seconds, settings.hung_seconds, settings.hung_computing_seconds)
    meter = WorkMeter(snapshot.engine_pid)
    watch = HangWatch(snapshot.replica_id, endpoint, guard.progress, meter, guard.traffic, limits)
    try:
        return await watch.wait()
    except Exception:  # a defect of ours: the engine runs on, but nobody would notice that it is not watched
        log.exception("the progress of replica %s is not watched any more", snapshot.replica_id)
        return None
