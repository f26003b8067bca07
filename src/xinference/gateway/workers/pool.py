"""The gateway as several processes on one port: kept alive, told what there is, and seen as one from the server."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from xinference.config import Settings
from xinference.gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from xinference.gateway.http.server import LAST_ANSWERS_SECONDS
from xinference.gateway.metrics import Metrics
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers.ipc import Begin, Forget, Reported, Stop, Table, packed
from xinference.gateway.workers.worker_handle import Shared, WorkerProcess
from xinference.keys.table import Keys
from xinference.routing.interfaces import Router, Tables

log = logging.getLogger(__name__)
#: A process that lived shorter than this is replaced only after `PAUSE_SECONDS`.
SHORT_LIFE_SECONDS, PAUSE_SECONDS = 5.0, 1.0
#: How often what they have counted is taken from them, if nobody asks.
COLLECT_SECONDS = 20.0
#: A process that says nothing for so long when it is asked hangs: it is killed and replaced, as if it had died.
HUNG_SECONDS = 10.0
#: How long an answer of the management API waits for a gateway that is stuck.
STUCK_SECONDS = 2.0
#: Paths whose answers tell what the gateways have counted.
COLLECTED = frozenset({"/metrics", "/v1/keys"})
POLL_SECONDS = 0.02


class KeysKept(Keys, Protocol):
    """The keys, where they are kept."""

    def note_use(self, key_id: str, at: float) -> None:
        """A request came with this key."""
        ...


class Workers:
    """All gateway processes of the server: a `Use`, and an `Abortables`."""

    def __init__(self, settings: Settings, tables: Tables, keys: KeysKept, management: Path) -> None:
        self._settings = settings
        self._tables = tables
        self._keys = keys
        self._management = management
        self.metrics = Metrics(lambda: tables.table, lambda: self)
        self._workers: list[WorkerProcess] = []
        self._ended: dict[str, float] = {}
        self._version = 0
        self._keeping: list[asyncio.Task[None]] = []
        self._ending = False

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self, listener: socket.socket, router: Router) -> None:
        """Start them all; returns when each may take requests."""
        self._listener = listener
        shared = Shared(router, LocalQuota(), self._reported)
        self._keeping = [asyncio.create_task(self._keep(shared)) for _ in range(self._settings.gateway_workers)]
        self._keeping.append(asyncio.create_task(self._collect_now_and_then()))
        while sum(worker.serving for worker in self._workers) < self._settings.gateway_workers:  # noqa: ASYNC110 -- a start
            await asyncio.sleep(POLL_SECONDS)

    async def close(self) -> None:
        """End them once the answers in flight are sent."""
        self._ending = True
        await self.collect()
        self._listener.close()
        for worker in self._workers:
            worker.link.send(Stop())
        until = time.monotonic() + LAST_ANSWERS_SECONDS + 1
        while any(w.process.poll() is None for w in self._workers) and time.monotonic() < until:  # noqa: ASYNC110 -- an end
            await asyncio.sleep(POLL_SECONDS)
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def _keep(self, shared: Shared) -> None:
        """One process after the other."""
        while not self._ending:
            try:
                worker = await WorkerProcess.start(self._listener, shared)
            except OSError as error:
                log.error("a gateway process can't be started: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if self._ending:
                worker.process.kill()
            settings = asdict(self._settings) | {"home": os.fspath(self._settings.home)}
            worker.link.send(Begin(settings, os.fspath(self._management)))
            worker.link.send(self._table())
            self._workers.append(worker)
            await worker.listen()
            await asyncio.to_thread(worker.process.wait)
            if self._ending:
                return
            self._workers.remove(worker)
            log.warning("gateway process %d ended (%s)", worker.process.pid, worker.process.returncode)
            if time.monotonic() - worker.started < SHORT_LIFE_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _collect_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            await asyncio.gather(*(_report_or_die(worker) for worker in self._workers))

    # -- what they know -------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Send them the newest routes and keys; whoever waits for that waits for `informed` or `settled`."""
        self._version += 1
        if self._workers:
            message = packed(self._table())
            for worker in self._workers:
                worker.link.send(message)

    def _table(self) -> Table:
        table, keys = self._tables.table, self._keys.table
        return Table(self._version, dict(table.routes), table.listing, [*keys.by_digest.values()], keys.required)

    async def informed(self) -> None:
        """Wait until each uses the newest table; not for ever, if one is stuck."""
        late = [worker for worker in self._workers if worker.serving and worker.seen < self._version]
        if late:
            await _soon(asyncio.gather(*(worker.until_seen(self._version) for worker in late)))

    async def collect(self) -> None:
        """Have each say what it has counted, and when keys were used; one that is stuck does so later."""
        await _soon(self.settled())

    # -- what they do, as a `Use` ---------------------------------------------------------------------------

    def at(self, replica_id: str) -> int:
        """See `Use.at`."""
        return sum(worker.requests_at(replica_id) for worker in self._workers)

    def last_end(self, replica_id: str) -> float | None:
        """See `Use.last_end`."""
        return self._ended.get(replica_id)

    def forget(self, replica_id: str) -> None:
        """See `Use.forget`."""
        self._ended.pop(replica_id, None)
        for worker in self._workers:
            worker.ended.pop(replica_id, None)
            worker.link.send(Forget(replica_id))

    async def settled(self) -> None:
        """See `Use.settled`. One that is stuck is waited for until it is killed: nobody knows what it does."""
        await asyncio.gather(*(worker.report() for worker in self._workers))

    def _reported(self, said: Reported) -> None:
        for replica_id, at in said.ended.items():
            self._ended[replica_id] = max(at, self._ended.get(replica_id, at))
        for key_id, at in said.keys_used.items():
            self._keys.note_use(key_id, at)
        self.metrics.add(said.counted)

    async def end(self, model: str, request_id: str) -> bool:
        """See `Abortables.end`."""
        return any(await asyncio.gather(*(worker.abort(model, request_id) for worker in self._workers)))


class Manager:
    """The server's own app, behind its gateways: what it answers, each of them knows already."""

    def __init__(self, app: ASGIApp, workers: Workers) -> None:
        self._app = app
        self._workers = workers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_known(message: Message) -> None:
            await self._workers.informed()
            await send(message)

        if scope.get("path") in COLLECTED:
            await self._workers.collect()
        await self._app(scope, receive, send_known)


async def _report_or_die(worker: WorkerProcess) -> None:
    try:
        await asyncio.wait_for(worker.report(), HUNG_SECONDS)
    except TimeoutError:
        log.error("gateway process %d has hung for %g s and is killed", worker.process.pid, HUNG_SECONDS)
        worker.process.kill()


async def _soon(awaited: Awaitable[Any]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(awaited, STUCK_SECONDS)
