"""The life of a server: start, serve, end.

python -m xinference.server --host 127.0.0.1 --port 9997
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop

from xinference import __version__
from xinference.config import Settings, misspelled
from xinference.control.controller import Controller
from xinference.control.server_metrics import server_metrics
from xinference.control.tracing.start import start_tracing
from xinference.control.usage import Usage
from xinference.deployments.context import Ending
from xinference.errors import EXIT_IN_USE, InUse, Problem
from xinference.gateway.http.connection_limits import raise_descriptor_limit
from xinference.gateway.http.server import Server
from xinference.hosts import host_in_url
from xinference.keys.keyring import Keyring
from xinference.keys.sessions import Lifetime
from xinference.listener import check_exposure, check_host, is_exposed, listen
from xinference.log_setup import set_up_log
from xinference.process.engine_stop import finish_stop, on_signals
from xinference.process.home import announce, own_home, withdraw
from xinference.process.state_root import own_states
from xinference.records.hub import RecordHub
from xinference.records.record import Record
from xinference.routing.interfaces import Router
from xinference.server_options import ServerOptions
from xinference.server_parts import build_several, build_single
from xinference.store.database import Store

if TYPE_CHECKING:
    from xinference.cluster.supervisor import Cluster
    from xinference.control.tracing.start import Tracing
    from xinference.gateway.app import Gateway
    from xinference.gateway.weight_door import WeightDoor
    from xinference.gateway.workers.pool import WorkerPool

log = logging.getLogger("xinference")
#: Interval at which the server tries again to write the files that announce it.
ANNOUNCE_SECONDS = 10.0


def run(options: ServerOptions) -> int:
    """Serve until SIGINT, SIGTERM or a stop request to the API; returns the exit status.

    After SIGTERM, the engines keep running for their grace period, for the next server. SIGINT and a stop request stop
    them.

    Raises:
        Problem: a setting is wrong, or the server would be exposed without keys.
        InUse: another process uses the port or the home.
    """
    settings = options.settings()
    set_up_log(settings.log_level, settings.log_format)
    for variable, setting in misspelled(os.environ).items():
        log.warning("%s is not a setting and has no effect; did you mean %s?", variable, setting)
    raise_descriptor_limit()
    port_is_given = options.port is not None or "XINFERENCE_PORT" in os.environ
    with (
        own_home(settings),
        own_states(settings.home),
        contextlib.closing(Store(settings.home / "xinference.db")) as store,
    ):
        keys = Keyring(
            store,
            always_required=is_exposed(settings) and not settings.allow_unauthenticated,
            lifetime=Lifetime(settings.session_idle_seconds, settings.session_seconds),
        )
        check_host(settings.host)
        check_exposure(settings, keys)
        with listen(settings, port_is_given) as listener:
            uvloop.run(_serve(settings, store, keys, listener))
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further Ctrl+C is for a server that has ended
    return 0


async def _serve(settings: Settings, store: Store, keys: Keyring, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    settings = replace(settings, port=port)  # the port that was free
    build = build_several if settings.gateway_workers > 1 else build_single
    stop_requested = asyncio.Event()
    hub = RecordHub()
    usage = Usage(store, hub.totals)
    parts = build(settings, store, keys, hub, usage, stop_requested.set)
    server, gateway, workers, controller = parts.server, parts.gateway, parts.workers, parts.controller
    gateway.metrics.add(lambda: server_metrics(controller, settings))
    tracing = _begin_tracing(settings, hub, gateway, workers)
    announcing = asyncio.create_task(_announce(settings, host, port, keys.open_for_owner()))
    await asyncio.sleep(0)  # the first attempt is before the first answer
    tasks = [
        announcing,
        asyncio.create_task(keys.flush_periodically()),
        asyncio.create_task(gateway.refusals.report_periodically()),
        asyncio.create_task(usage.store_periodically(gateway.metrics.remove_old)),
        asyncio.create_task(parts.sampler.run()),
        asyncio.create_task(_stop_when(stop_requested, server)),
    ]
    try:
        await controller.start()
        if controller.cluster is not None:
            _serve_on_workers(controller, controller.cluster, keys, hub, settings.on_demand_wait_seconds)
    except BaseException:  # the database cannot be read: what was adopted is left for the next server
        announcing.cancel()
        await controller.close("detach")
        withdraw(settings)
        raise
    weight_door = None if controller.cluster is None else _open_weight_door(settings, controller.cluster)
    # A full collection would visit all loaded objects and block every stream meanwhile: 29 ms for 85,000 objects.
    gc.freeze()
    log.info("xinference %s serves http://%s:%d (home %s)", __version__, host_in_url(host), port, settings.home)
    try:
        if workers is None:
            await server.serve(sockets=[listener])
        else:
            await _serve_behind(workers, server, listener, controller)
    finally:
        hurried = asyncio.Event()
        on_signals(hurried.set)  # the handlers of the server are gone
        how: Ending = "stop" if server.ended_by == signal.SIGINT else "detach"
        if weight_door is not None:
            await weight_door.close()
        if how == "stop":
            await finish_stop(controller.close(how), hurried, settings.run_dir)
        else:
            await controller.close(how)
        await gateway.close()
        for task in tasks:
            task.cancel()
        gateway.refusals.report()
        usage.flush(current=True)
        if tracing is not None:
            await tracing.close()
        keys.flush()
        withdraw(settings)
        log.info("ended (%s)", "engines stopped" if how == "stop" else "engines keep running for the next server")


def _begin_tracing(settings: Settings, hub: RecordHub, gateway: Gateway, workers: WorkerPool | None) -> Tracing | None:
    """Send traces to the collector of the settings; None: they name none."""
    tracing = start_tracing(settings, hub)
    if tracing is not None:
        gateway.recorder.sampling = tracing.sampling
        if workers is not None:
            workers.traces = True
    return tracing


def _serve_on_workers(
    controller: Controller, cluster: Cluster, keys: Keyring, hub: RecordHub, load_seconds: float
) -> None:
    """Send routes and keys to the workers that serve clients, and count their requests."""
    from xinference.gateway.node_gateway import encode_gateway_table  # a server on one machine does without it

    cluster.gateways.begin(
        lambda: encode_gateway_table(controller.table, keys.table),
        lambda uid: controller.ensure_ready(uid, load_seconds),
    )

    def count(records: Iterable[Record]) -> None:
        for record in records:
            hub.publish(record)
            if record.key_id:
                keys.note_use(record.key_id, record.started)

    cluster.members.served = count
    controller.subscribe(cluster.gateways.changed)
    keys.subscribe(cluster.gateways.changed)


async def _announce(settings: Settings, host: str, port: int, owner_key: str) -> None:
    """Announce the server, again and again until the disk has room for it."""
    announced = announce(settings, host, port, owner_key)
    while not announced:
        await asyncio.sleep(ANNOUNCE_SECONDS)
        announced = announce(settings, host, port, owner_key)


async def _stop_when(requested: asyncio.Event, server: Server) -> None:
    await requested.wait()
    server.stop()


def _open_weight_door(settings: Settings, cluster: Cluster) -> WeightDoor | None:
    """Let workers copy weights from this machine, unless it runs no models: a worker beside it has the port then."""
    if settings.no_models:
        return None
    from xinference.gateway.weight_door import WeightDoor  # a server on one machine does without it

    door = WeightDoor(cluster.offers.path, cluster.server_context(), cluster.removed)
    cluster.weight_port = door.open(settings.host, settings.worker_port)
    return door


async def _serve_behind(workers: WorkerPool, server: Server, listener: socket.socket, router: Router) -> None:
    """Serve the gateway processes, which serve the clients."""
    starting = asyncio.create_task(workers.start(listener, router))
    try:
        await server.serve()
    finally:
        starting.cancel()


def main() -> int:
    """Entry point of ``python -m xinference.server``."""
    try:
        return run(ServerOptions.of_words(sys.argv[1:]))
    except Problem as problem:
        lines = [f"Error: {problem.cause}", *([f"Hint: {problem.hint}"] if problem.hint else [])]
        print("\n".join(lines), file=sys.stderr)  # noqa: T201 -- there is no log yet
        return EXIT_IN_USE if isinstance(problem, InUse) else 1
    except KeyboardInterrupt:  # before it serves
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
