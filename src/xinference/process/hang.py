"""Watches the progress of one ready engine: sends its probes, and returns when it hangs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from xinference.process.command import ProgressProbe
from xinference.process.probe import Endpoint
from xinference.process.probe_session import probe_session
from xinference.process.progress_watch import Limits, ProgressWatch, Step, Work
from xinference.process.work_meter import WorkMeter

#: Pause after a probe that got no answer of the engine's main loop.
RETRY_SECONDS = 1.0

AnswerWait = Callable[[Endpoint, ProgressProbe], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class EngineTraffic:
    """What the gateway knows of the requests at an engine."""

    in_flight: Callable[[str], int]
    """The number of requests at a replica, by its id."""
    last_byte: Callable[[str], Awaitable[float]]
    """When the last byte of an engine arrived, by its base URL; a value of `time.monotonic`."""


async def wait_for_answer(endpoint: Endpoint, probe: ProgressProbe) -> None:
    """Send the probe, again after each failure, until the engine answers it."""
    headers = {"Authorization": f"Bearer {endpoint.api_key}"}
    method = "GET" if probe.body is None else "POST"
    async with probe_session(headers) as session:
        import aiohttp  # here, because the start of the server does not need it: see `probe_session`

        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.request(method, endpoint.base_url + probe.path, json=probe.body) as answer:
                    if answer.status < 500:
                        return
            await asyncio.sleep(RETRY_SECONDS)


class HangWatch:
    """The watch on one engine."""

    def __init__(
        self,
        replica_id: str,
        endpoint: Endpoint,
        probe: ProgressProbe,
        meter: WorkMeter,
        traffic: EngineTraffic,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ask: AnswerWait = wait_for_answer,
    ) -> None:
        self._replica_id = replica_id
        self._endpoint = endpoint
        self._probe = probe
        self._meter = meter
        self._traffic = traffic
        self._limits = limits
        self._clock = clock
        self._pause = pause
        self._ask = ask
        self._watch = ProgressWatch(limits, clock(), one_thread=probe.one_thread, max_in_flight=probe.max_in_flight)
        self._answer: asyncio.Task[None] | None = None

    async def wait(self) -> str:
        """Return when the engine hangs; the result completes the sentence "The engine …"."""
        try:
            while True:
                await self._pause(self._limits.interval)
                match await self._observe():
                    case Step.SEND_PROBE:
                        await asyncio.to_thread(self._meter.restart)
                        self._answer = asyncio.create_task(self._ask(self._endpoint, self._probe))
                    case Step.END:
                        return "made no progress with its requests and answered no probe, and was ended"
        finally:
            if self._answer is not None:
                self._answer.cancel()

    async def _observe(self) -> Step:
        if self._answer is not None and self._answer.done():
            self._answer = None
            self._watch.note_answer()
        in_flight, work, last_byte = self._traffic.in_flight(self._replica_id), Work(), 0.0
        if self._watch.is_waiting:
            work = await asyncio.to_thread(self._meter.work)
            if self._watch.may_queue(in_flight):
                last_byte = await self._traffic.last_byte(self._endpoint.base_url)
        return self._watch.observe(self._clock(), in_flight, last_byte, work)
