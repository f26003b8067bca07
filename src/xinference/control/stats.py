"""Samples the rates of requests and the load of the machine: every 2 s while somebody reads them, else every 30 s."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from xinference.records.rates import Rates, Snapshot, counts_by_model
from xinference.records.totals import Totals
from xinference.routing.active_requests import ActiveRequests

log = logging.getLogger(__name__)

#: Seconds between two samples while somebody reads, and while nobody does.
WATCHED_SECONDS, IDLE_SECONDS = 2.0, 30.0
#: Time after the last reading in which the samples stay frequent.
WATCH_SECONDS = 60.0

Host = Callable[[], Mapping[str, float]]


def host_load() -> Mapping[str, float]:
    """The share of the processors that all programs use since the last call, and the memory in use, in bytes.

    The system counts from the last call, so only the sampler calls this.
    """
    import psutil

    memory = psutil.virtual_memory()
    return {"cpu": psutil.cpu_percent() / 100, "memory": float(memory.total - memory.available)}


def gpu_loads() -> Mapping[str, float]:
    """Of each GPU, the share of time in which it computes, and its memory in use, in bytes. Blocks for some time."""
    from xinference.hardware.gpu_load import read_gpu_loads  # not needed without a reader

    values: dict[str, float] = {}
    for load in read_gpu_loads():
        each = {f"gpu{load.index}_utilization": load.utilization, f"gpu{load.index}_memory": load.memory}
        values |= {name: value for name, value in each.items() if value is not None}
    return values


class Sampler:
    """Takes the samples."""

    def __init__(
        self,
        totals: Totals,
        running: ActiveRequests,
        host: Host = host_load,
        now: Callable[[], float] = time.time,
        gpus: Host = gpu_loads,
    ) -> None:
        self.rates = Rates()
        self._totals = totals
        self._running = running
        self._host = host
        self._now = now
        self._gpus: Host | None = gpus
        """None: this machine has none."""
        self._sampled = 0.0
        self._watched_until = 0.0
        self._watched = asyncio.Event()

    def watch(self) -> None:
        """Sample every 2 s for the next minute, because somebody reads the rates."""
        if self._now() >= self._watched_until:
            self._watched.set()
        self._watched_until = self._now() + WATCH_SECONDS

    async def read(self) -> Rates:
        """The rates up to now, for somebody who will read them again."""
        self.watch()
        if self._now() - self._sampled >= WATCHED_SECONDS:
            await self.sample()
        return self.rates

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            try:
                await self.sample()
            except Exception:  # a defect: the rates are information only, and later samples may succeed
                log.exception("the rates of requests could not be sampled")
            self._watched.clear()
            seconds = WATCHED_SECONDS if self._now() < self._watched_until else IDLE_SECONDS
            try:
                await asyncio.wait_for(self._watched.wait(), seconds)
            except TimeoutError:
                continue

    async def sample(self) -> None:
        """Take one sample."""
        active = await self._running.active()  # the records of those that have ended come with it
        self._sampled = self._now()
        running: dict[str, tuple[int, int, int]] = {}
        for each in active:
            number, waiting, output = running.get(each.model, (0, 0, 0))
            waits = 1 if each.waits_for else 0
            running[each.model] = (number + 1 - waits, waiting + waits, output + (each.output_tokens or 0))
        models = counts_by_model(self._totals.since_start(), running)
        self.rates.add(Snapshot(self._now(), models, {**self._host(), **await self._read_gpus()}))

    async def _read_gpus(self) -> Mapping[str, float]:
        if self._gpus is None:
            return {}
        values = await asyncio.to_thread(self._gpus)
        if not values:  # a thread for each sample would cost more than the rest of it
            self._gpus = None
        return values
