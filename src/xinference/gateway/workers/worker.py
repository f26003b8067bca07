"""A gateway process: one of several that accept on one listening socket, started and configured by the server.

python -m xinference.gateway.workers.worker CHANNEL_FD LISTENER_FD
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import assert_never

import uvloop

from xinference.config import Settings
from xinference.gateway.app import Gateway
from xinference.gateway.http.access_log import AccessLog
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.connection_limits import ConnectionLimits
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.http.node_tls import ClusterTls
from xinference.gateway.http.server import Server, http_server
from xinference.gateway.refusal_counter import RefusalCounter
from xinference.gateway.request_records import Recorder
from xinference.gateway.workers.ipc import (
    FROM_SERVER,
    AbortRecord,
    AbortRequests,
    AbortResult,
    Channel,
    Configuration,
    ForgetReplica,
    Grant,
    Ready,
    Records,
    Rejection,
    Report,
    ReportRequest,
    Serve,
    Stop,
    Suspects,
    TableAck,
    TableUpdate,
    ToWorker,
)
from xinference.gateway.workers.management_proxy import ManagementProxy
from xinference.gateway.workers.proxies import ServerProxy
from xinference.gateway.workers.server_watch import ServerWatch
from xinference.log_setup import set_up_log
from xinference.records.record import Record
from xinference.records.trace import sampling_of
from xinference.routing.abortable_requests import AbortableRequests

log = logging.getLogger(__name__)

#: Number of records that wait for the next report; more are sent at once.
MAX_WAITING = 512


class GatewayWorker:
    """The gateway of this process and its HTTP server; handles the messages of the server."""

    def __init__(self, channel: Channel[ToWorker], configuration: Configuration) -> None:
        settings = Settings(**configuration.settings | {"home": Path(configuration.settings["home"])})
        set_up_log(settings.log_level, settings.log_format)
        self._channel = channel
        self._proxy = ServerProxy(channel)
        self._running = AbortableRequests()
        self._watch = ServerWatch()
        self._management = ManagementProxy(configuration.management, settings.max_body_bytes, self._watch)
        self._records: list[Record] = []
        # The server has checked that it can send spans.
        self._recorder = Recorder(self._keep, sampling_of(os.environ) if configuration.traces else None)
        shutdown = Shutdown()
        self._gateway = Gateway(
            self._proxy,
            settings,
            self._management,
            self._proxy.keys,
            self._running,
            quota=self._proxy,
            recorder=self._recorder,
            balancer=self._proxy.balancer,
            crashes=self._proxy.crashes,
            shutdown=shutdown,
            node_tls=ClusterTls(settings.identity_dir) if settings.cluster else None,
        )
        app = AccessLog(self, lambda: self._proxy.keys.table) if settings.access_log else self
        self.server: Server = http_server(
            app, limits=ConnectionLimits.of(settings), shutdown=shutdown, drain_seconds=settings.drain_seconds
        )
        self.may_serve = asyncio.Event()
        """Set when the server allows the first request, or when it stops this process before that."""

    @property
    def refusals(self) -> RefusalCounter:
        """The refused requests of this process."""
        return self._gateway.refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The server has the counts of all processes.
        app = self._management if scope.get("path") == "/metrics" else self._gateway
        await app(scope, receive, send)

    async def close(self) -> None:
        """Close the connections to engines and to the server."""
        await self._gateway.close()
        await self._management.close()

    def handle(self, message: ToWorker) -> None:
        """Handle one message of the server."""
        self._watch.heard()
        match message:
            case TableUpdate():
                self._proxy.use(message)
                self._gateway.use_table()
                self._channel.send(TableAck(message.version))
            case Ready() | Grant() | Rejection():
                self._proxy.resolve(message)
            case ReportRequest():
                self._channel.send(self._report(message))
            case AbortRequests():
                aborted = self._running.abort(message.model, message.request_id)
                self._channel.send(AbortResult(message.number, aborted))
            case AbortRecord():
                self._channel.send(AbortResult(message.number, self._recorder.abort(message.request_id)))
            case ForgetReplica():
                self._gateway.balancer.forget(message.replica_id)
            case Suspects():
                for key, crashes in message.crashes:
                    self._proxy.crashes.suspect(key, crashes)
            case Serve():
                self.may_serve.set()
            case Stop():
                if self.server.should_exit:
                    self.server.hurry()
                self.server.stop()
                self.may_serve.set()
            case Configuration():
                raise ValueError("A process is configured once.")
            case _:
                assert_never(message)

    async def watch_server(self) -> None:
        """Refuse the requests that wait for a server that hangs, until the task is cancelled."""
        await self._watch.run(self._proxy.refuse_waiting)

    def _report(self, request: ReportRequest) -> Report:
        self._recorder.flush()
        balancer = self._gateway.balancer
        last_bytes, uses = dict(balancer.last_bytes()), self._proxy.keys.take_uses()
        active = self._recorder.active() if request.with_active else None
        records, self._records = self._records, []
        return Report(
            request.number,
            balancer.counts(),
            balancer.ends(),
            last_bytes,
            uses,
            records,
            active,
            balancer.take_affinity(),
        )

    def _keep(self, record: Record) -> None:
        self._records.append(record)
        if len(self._records) >= MAX_WAITING:
            self.send_records()

    def send_records(self) -> None:
        """Send the records that wait for the next report."""
        records, self._records = self._records, []
        if records:
            self._channel.send(Records(records))


async def work(channel_end: socket.socket, listener: socket.socket) -> None:
    """Serve until the server sends `Stop`; the process exits at once if the server dies."""
    channel = await Channel.open(channel_end, FROM_SERVER)
    messages = channel.messages()
    configuration = await anext(messages)
    assert isinstance(configuration, Configuration)
    worker = GatewayWorker(channel, configuration)

    async def handle_messages() -> None:
        try:
            async for message in messages:
                worker.handle(message)
        except Exception:  # a defect: the process must not continue with a table that is not updated any more
            log.exception("a message of the server could not be handled")
        # Otherwise the server is dead. The next server needs the port, and must adopt the engines in time.
        os._exit(1)

    handling = asyncio.create_task(handle_messages())
    await worker.may_serve.wait()
    gc.freeze()
    reporting = asyncio.create_task(worker.refusals.report_periodically())
    watching = asyncio.create_task(worker.watch_server())
    await worker.server.serve(sockets=[listener])
    reporting.cancel()
    watching.cancel()
    worker.refusals.report()
    await worker.close()
    worker.send_records()
    handling.cancel()
    await channel.end()


def main() -> None:
    """Entry point of ``python -m xinference.gateway.workers.worker``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel, listener = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
    uvloop.run(work(channel, listener))


if __name__ == "__main__":
    main()
