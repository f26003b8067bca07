"""Builds the parts of a server: one process, or several gateway processes in front of the management API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xinference.api.management import Management
from xinference.api.request_log import RequestLog
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.publisher import Publisher
from xinference.control.stats import Sampler
from xinference.control.usage import Usage
from xinference.gateway.app import Gateway
from xinference.gateway.auth.peer import is_marked_by_worker
from xinference.gateway.balancer import Balancer
from xinference.gateway.http.access_log import AccessLog
from xinference.gateway.http.connection_limits import ConnectionLimits
from xinference.gateway.http.last_answers import Shutdown
from xinference.gateway.http.node_tls import ClusterTls
from xinference.gateway.http.server import Server, http_server
from xinference.gateway.metrics import Metrics, key_counts
from xinference.gateway.request_records import LocalRequests, Recorder
from xinference.keys.keyring import Keyring
from xinference.process.link import private_run_dir
from xinference.records.hub import RecordHub
from xinference.routing.abortable_requests import AbortableRequests, Abortables
from xinference.store.database import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

    from xinference.gateway.workers.pool import WorkerPool


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one server, connected to each other. None of them runs yet."""

    server: Server
    gateway: Gateway
    workers: WorkerPool | None
    """The gateway processes; None: this process serves the clients."""
    controller: Controller
    sampler: Sampler


def build_single(
    settings: Settings, store: Store, keys: Keyring, hub: RecordHub, usage: Usage, stop: Callable[[], None]
) -> Parts:
    """Gateway, management API and controller in this process."""
    balancer, running, shutdown = Balancer(), AbortableRequests(), Shutdown()
    recorder = Recorder(hub.publish)
    controller = Controller(settings, store, balancer)
    local = LocalRequests(recorder)
    requests = RequestLog(hub, usage, local, Sampler(hub.totals, local))
    management = Management(partial(_load_management, controller, settings, keys, stop, running, requests))
    gateway = Gateway(
        controller,
        settings,
        management,
        keys,
        running,
        metrics=Metrics(
            lambda: controller.table,
            lambda: balancer,
            hub.totals,
            active=recorder.active,
            affinity=balancer.take_affinity,
            keys=key_counts(settings, hub),
        ),
        recorder=recorder,
        balancer=balancer,
        shutdown=shutdown,
        node_tls=ClusterTls(settings.identity_dir) if settings.cluster else None,
    )
    controller.subscribe(gateway.use_table)

    async def before_end() -> None:
        controller.begin_stop()

    server = http_server(
        AccessLog(gateway, lambda: keys.table) if settings.access_log else gateway,
        limits=ConnectionLimits.of(settings),
        before_end=before_end,
        shutdown=shutdown,
        drain_seconds=settings.drain_seconds,
    )
    server.on_start = management.begin
    return Parts(server, gateway, None, controller, requests.sampler)


def build_several(
    settings: Settings, store: Store, keys: Keyring, hub: RecordHub, usage: Usage, stop: Callable[[], None]
) -> Parts:
    """Gateways in separate processes; management API and controller in this process, behind them."""
    from xinference.gateway.workers.pool import SynchronizedApp, WorkerPool  # a single process starts faster without it

    path = private_run_dir(settings) / "management.sock"
    path.unlink(missing_ok=True)  # left by a server that was killed: this process holds the home's lock
    publisher = Publisher()
    workers = WorkerPool(settings, publisher, keys, path, hub)
    publisher.subscribe(workers.publish)
    keys.subscribe(workers.publish)
    controller = Controller(settings, store, workers, publisher)
    requests = RequestLog(hub, usage, workers, Sampler(hub.totals, workers))
    management = Management(partial(_load_management, controller, settings, keys, stop, workers, requests))
    shutdown = Shutdown()
    gateway = Gateway(
        controller,
        settings,
        management,
        keys,
        metrics=workers.metrics,
        is_owner=is_marked_by_worker,
        shutdown=shutdown,
    )

    async def before_end() -> None:
        controller.begin_stop()
        await workers.close()  # from here on no client is connected

    server = http_server(
        SynchronizedApp(gateway, workers),
        limits=ConnectionLimits.of(settings),
        before_end=before_end,
        on_hurry=workers.hurry,
        shutdown=shutdown,
        drain_seconds=0.0,
        uds=str(path),
    )
    server.on_start = management.begin
    return Parts(server, gateway, workers, controller, requests.sampler)


def _load_management(
    controller: Controller,
    settings: Settings,
    keys: Keyring,
    stop: Callable[[], None],
    running: Abortables,
    requests: RequestLog,
) -> FastAPI:
    from xinference.api.app import make_app  # half of the server's imports, which the data path does not need
    from xinference.gateway.openapi import document

    return make_app(controller, settings, keys, stop, document(), running, requests=requests)
