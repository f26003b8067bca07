"""The pool of gateway processes on one port: starts and replaces them, and sums their counts for the server."""

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
from xinference.gateway.crash_memory import RequestKey
from xinference.gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from xinference.gateway.http.server import LAST_WRITES_SECONDS
from xinference.gateway.metrics import Metrics, key_counts
from xinference.gateway.rate_limits import LocalQuota
from xinference.gateway.workers.crash_reports import SharedCrashes
from xinference.gateway.workers.ipc import Configuration, ForgetReplica, Report, Stop, Suspects, TableUpdate, packed
from xinference.gateway.workers.worker_handle import SharedState, WorkerHandle
from xinference.keys.table import Keys
from xinference.records.hub import RecordHub
from xinference.routing.active_requests import ActiveRequest
from xinference.routing.interfaces import Router, Tables

log = logging.getLogger(__name__)

#: A process that ends sooner than this after its start is replaced only after `PAUSE_SECONDS`.
SHORT_LIFE_SECONDS = 5.0
PAUSE_SECONDS = 1.0
#: Interval at which counts are collected from the processes, if there is no request for them.
COLLECT_SECONDS = 5.0
#: A process that does not report within this time hangs: it is killed and replaced as if it had died.
HUNG_SECONDS = 10.0
#: Maximum delay of a management response by a process that hangs.
DELAY_SECONDS = 2.0
#: Time of a process to end after its last answer.
STOP_SECONDS = 2.0
#: Paths whose responses contain the counts of the processes.
COUNTED_PATHS = frozenset({"/v1/keys"})
#: The path whose response also contains the requests that have not ended.
METRICS_PATH = "/metrics"


class StoredKeys(Keys, Protocol):
    """The keys as the server stores them."""

    def note_use(self, key_id: str, at: float) -> None:
        """Record the time of a request with this key."""
        ...


class WorkerPool:
    """All gateway processes of the server, as one `ReplicaLoad` and one `Abortables`."""

    def __init__(
        self, settings: Settings, tables: Tables, keys: StoredKeys, management: Path, hub: RecordHub | None = None
    ) -> None:
        self._settings = settings
        self._tables = tables
        self._keys = keys
        self._management = management
        self._hub = hub or RecordHub()
        self.traces = False
        """Whether requests are traced; set before `start`."""
        self._affinity: list[tuple[str, str, int]] = []
        self.metrics = Metrics(
            lambda: tables.table,
            lambda: self,
            self._hub.totals,
            active=lambda: (each for worker in self._workers for each in worker.active),
            affinity=self._take_affinity,
            processes=self._states,
            keys=key_counts(settings, self._hub),
        )
        self._listener: socket.socket | None = None
        self._workers: list[WorkerHandle] = []
        self._last_ends: dict[str, float] = {}
        self._crashes = SharedCrashes(self._announce)
        self._version = 0
        self._supervisors: list[asyncio.Task[None]] = []
        self._collector: asyncio.Task[None] | None = None
        self._all_serve = asyncio.Event()
        self._ending = False

    # -- start and end --------------------------------------------------------------------------------------

    async def start(self, listener: socket.socket, router: Router) -> None:
        """Start the processes; returns when each of them accepts requests."""
        self._listener = listener
        shared = SharedState(
            router, LocalQuota(), self._add_report, self._hub.publish_all, self._note_serving, self._crashes
        )
        self._supervisors = [
            asyncio.create_task(self._supervise(listener, shared)) for _ in range(self._settings.gateway_workers)
        ]
        self._collector = asyncio.create_task(self._collect_periodically())
        await self._all_serve.wait()

    async def close(self) -> None:
        """Stop the processes once the answers in flight are sent; kill those that take too long."""
        self._ending = True
        await self.collect()
        if self._listener is not None:
            self._listener.close()
        for worker in self._workers:
            worker.channel.send(Stop())
        if self._supervisors:  # each returns when its process has ended
            last_writes = 2 * LAST_WRITES_SECONDS + STOP_SECONDS
            await asyncio.wait(self._supervisors, timeout=self._settings.drain_seconds + last_writes)
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        tasks = [*self._supervisors, *([self._collector] if self._collector else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hurry(self) -> None:
        """End the open answers at once; the processes are stopping already."""
        for worker in self._workers:
            worker.channel.send(Stop())

    async def _supervise(self, listener: socket.socket, shared: SharedState) -> None:
        """Keep one process running: start another one whenever it ends."""
        while not self._ending:
            try:
                worker = await WorkerHandle.start(listener, shared)
            except OSError as error:
                log.error("a gateway process can't be started: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if self._ending:
                worker.process.kill()
            settings = asdict(self._settings) | {"home": os.fspath(self._settings.home)}
            worker.channel.send(Configuration(settings, os.fspath(self._management), self.traces))
            worker.channel.send(self._table_update())
            if crashes := self._crashes.memory.crashes:
                worker.channel.send(Suspects(crashes))
            self._workers.append(worker)
            await worker.handle_messages()
            await asyncio.to_thread(worker.process.wait)
            if self._ending:
                return
            self._workers.remove(worker)
            log.warning("gateway process %d ended (%s)", worker.process.pid, worker.process.returncode)
            if time.monotonic() - worker.started < SHORT_LIFE_SECONDS:
                await asyncio.sleep(PAUSE_SECONDS)

    def _note_serving(self) -> None:
        if sum(worker.serving for worker in self._workers) == self._settings.gateway_workers:
            self._all_serve.set()

    async def _collect_periodically(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            await asyncio.gather(*(_report_or_kill(worker) for worker in self._workers))

    # -- updates of the processes ---------------------------------------------------------------------------

    def publish(self) -> None:
        """Send the newest routes and keys; `informed` and `settled` wait until they are in use."""
        self._version += 1
        if self._workers:
            message = packed(self._table_update())
            for worker in self._workers:
                worker.channel.send(message)

    def _table_update(self) -> TableUpdate:
        table, keys = self._tables.table, self._keys.table
        return TableUpdate(
            self._version,
            dict(table.routes),
            table.listing,
            keys.entries,
            keys.required,
        )

    def _announce(self, crashes: list[tuple[RequestKey, int]]) -> None:
        message = packed(Suspects(crashes))
        for worker in self._workers:
            worker.channel.send(message)

    async def informed(self) -> None:
        """Wait until each process uses the newest table, for at most `DELAY_SECONDS`."""
        late = [worker for worker in self._workers if worker.serving and worker.table_version < self._version]
        if late:
            await _briefly(asyncio.gather(*(worker.wait_for_table(self._version) for worker in late)))

    async def collect(self) -> None:
        """Collect counts and key uses from the processes, for at most `DELAY_SECONDS`."""
        await _briefly(self.settled())

    # -- load and abort of requests -------------------------------------------------------------------------

    def at(self, replica_id: str) -> int:
        return sum(worker.requests_at(replica_id) for worker in self._workers)

    def last_end(self, replica_id: str) -> float | None:
        return self._last_ends.get(replica_id)

    async def last_byte(self, base_url: str) -> float:
        await self.collect()
        return max((worker.last_bytes.get(base_url, 0.0) for worker in self._workers), default=0.0)

    def forget(self, replica_id: str) -> None:
        self._last_ends.pop(replica_id, None)
        for worker in self._workers:
            worker.channel.send(ForgetReplica(replica_id))

    async def settled(self) -> None:
        """Wait for a report of each process. A process that hangs is killed first, because its requests are unknown."""
        await asyncio.gather(*(worker.report() for worker in self._workers))

    def _add_report(self, report: Report) -> None:
        for replica_id, at in report.last_ends.items():
            self._last_ends[replica_id] = max(at, self._last_ends.get(replica_id, at))
        for key_id, at in report.key_uses.items():
            self._keys.note_use(key_id, at)
        self._hub.publish_all(report.records)
        self._affinity += report.affinity

    def _take_affinity(self) -> list[tuple[str, str, int]]:
        taken, self._affinity = self._affinity, []
        return taken

    def _states(self) -> dict[str, int]:
        serving = sum(worker.serving for worker in self._workers)
        return {"serving": serving, "starting": self._settings.gateway_workers - serving}

    async def active(self) -> list[ActiveRequest]:
        """The requests that have not ended, in all processes."""
        await _briefly(asyncio.gather(*(worker.report(with_active=True) for worker in self._workers)))
        return sorted((each for worker in self._workers for each in worker.active), key=lambda each: each.started)

    async def abort_request(self, request_id: str) -> bool:
        """Abort the request with this id of a record; returns whether there was one."""
        return any(await asyncio.gather(*(worker.abort_record(request_id) for worker in self._workers)))

    async def abort_all(self, model: str, request_id: str) -> bool:
        """Abort the requests of this id in all processes; returns whether there was one."""
        return any(await asyncio.gather(*(worker.abort(model, request_id) for worker in self._workers)))


class SynchronizedApp:
    """The server's ASGI app; delays each management response until every worker has applied the change."""

    def __init__(self, app: ASGIApp, pool: WorkerPool) -> None:
        self._app = app
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_informed(message: Message) -> None:
            await self._pool.informed()
            await send(message)

        if scope.get("path") == METRICS_PATH:
            await self._pool.active()
        elif scope.get("path") in COUNTED_PATHS:
            await self._pool.collect()
        await self._app(scope, receive, send_informed)


async def _report_or_kill(worker: WorkerHandle) -> None:
    try:
        await asyncio.wait_for(worker.report(), HUNG_SECONDS)
    except TimeoutError:
        log.error("gateway process %d hangs: no report for %g s; it is killed", worker.process.pid, HUNG_SECONDS)
        worker.process.kill()


async def _briefly(awaitable: Awaitable[Any]) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(awaitable, DELAY_SECONDS)
