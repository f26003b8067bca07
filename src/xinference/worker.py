"""A worker: runs models on this machine for the supervisor of a cluster.

It owns the keepers, environments and weights of its machine, has one port for the requests of its models, and dials the
supervisor. A lost link ends no engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from xinference import __version__
from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import InUse, Problem, bad_request, system_reason
from xinference.fabric.frames import UNREADABLE
from xinference.gateway.door_load import DoorLoad
from xinference.gateway.front_door import FrontDoor, front_door_server
from xinference.gateway.http.connection_limits import raise_descriptor_limit
from xinference.gateway.http.engine_pool import EnginePool
from xinference.gateway.weight_files import WeightFiles
from xinference.hardware.machine_id import machine_id
from xinference.hosts import address_of, host_in_url
from xinference.hubs.reachability import allowed_hubs
from xinference.hubs.registry import all_hubs
from xinference.log_setup import set_up_log
from xinference.nodes.agent import Agent
from xinference.nodes.cluster_table import RemovedNodes, decode_table
from xinference.nodes.departure import Departure
from xinference.nodes.join_tokens import parse_token
from xinference.nodes.joining import Membership, WorkerHome, find_supervisor, join
from xinference.nodes.local import LocalNode
from xinference.nodes.offered_files import OfferedFiles
from xinference.nodes.peer_link import PeerLink
from xinference.nodes.report_slots import seconds_to_report
from xinference.nodes.served_records import ServedRecords
from xinference.nodes.supervisor_link import SupervisorLink
from xinference.process.engine_stop import on_signals
from xinference.process.home import own_home
from xinference.process.leftovers import keepers_of
from xinference.process.own_program import Inherited, start_again
from xinference.tls_listener import bind
from xinference.work_threads import LongWork

if TYPE_CHECKING:
    from xinference.gateway.node_gateway import NodeGateway

log = logging.getLogger("xinference")
#: Interval at which a worker without a supervisor looks whether its time is over, in seconds.
ORPHAN_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class WorkerOptions:
    """What a person says of a worker when it starts."""

    endpoint: str | None = None
    """URL of the supervisor; None: the worker has joined before."""
    token: str | None = None
    host: str | None = None
    """The address of this machine that the others use; None: that of the connection to the supervisor."""
    labels: Mapping[str, str] | None = None
    serve: bool = False
    """Take requests of clients, too."""
    ends_with_supervisor: bool = False
    """Whether the worker ends when no supervisor has wanted it for `orphan_seconds`: a supervisor has started it."""


def run(options: WorkerOptions, settings: Settings) -> int:
    """Work until SIGINT or SIGTERM; returns the exit status. SIGINT stops the engines, SIGTERM does not.

    Raises:
        Problem: the worker cannot join.
        InUse: another process uses the port or the home.
    """
    set_up_log(settings.log_level, settings.log_format)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    raise_descriptor_limit()
    with own_home(settings, "worker"):
        restarts = uvloop.run(_work(options, settings))
    if restarts:  # the home is free again: the next program locks it
        start_again()
    return 0


async def _work(options: WorkerOptions, settings: Settings) -> bool:
    """Work until the end; returns whether the program is to start again."""
    name, home = socket.gethostname(), WorkerHome(settings.home / "cluster")
    _check_host(options.host)
    membership = await _membership(options, name, home)
    host = options.host or _local_address(membership)
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(_listen(host, settings.worker_port, "--worker-port"))
        clients = opened.enter_context(_listen(host, settings.port, "--port")) if options.serve else None
        return await _Worker(settings, options, membership, home, name, listener, clients).run()


def _check_host(host: str | None) -> None:
    """Refuse an address to listen on that is none to connect to."""
    address = None if host is None else address_of(host)
    if address is not None and address.is_unspecified:
        raise bad_request(
            f"No other machine can connect to {host}: --host is the address at which the others reach this machine.",
            hint="Name an address of this machine, or leave out --host: then it is that of the connection to the "
            "supervisor.",
        )


async def _membership(options: WorkerOptions, name: str, home: WorkerHome) -> Membership:
    """The cluster that this worker has joined, or joins now. A token of a cluster that it has joined is not used."""
    membership = home.load()
    endpoint, token = options.endpoint, options.token
    if membership is not None and (token is None or home.is_of(parse_token(token).fingerprint)):
        return await _moved(membership, endpoint, home) if endpoint else membership
    if endpoint is None or token is None:
        raise bad_request(
            "This machine has not joined a cluster: --endpoint and --token are needed.",
            hint="`xinference cluster token create`, on the supervisor, prints the whole command.",
        )
    return await join(endpoint, token, name, home)


async def _moved(membership: Membership, endpoint: str, home: WorkerHome) -> Membership:
    """The membership with the address at which the supervisor is now; unchanged if it does not answer."""
    try:
        return await find_supervisor(membership, endpoint, home)
    except Problem as problem:
        log.warning("%s The worker tries %s:%d.", problem.cause, membership.host, membership.port)
        return membership


def _local_address(membership: Membership) -> str:
    """The address of this machine from which the supervisor is reached: no packet is sent.

    Raises:
        Problem: 503 ``server_unreachable``, this machine has no route to it, or its name has no address.
    """
    try:
        infos = socket.getaddrinfo(membership.host, membership.port, type=socket.SOCK_DGRAM)
        with socket.socket(infos[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(infos[0][4])
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Problem(
            Code.SERVER_UNREACHABLE,
            f"The supervisor at {host_in_url(membership.host)}:{membership.port} cannot be reached from this machine: "
            f"{system_reason(error)}.",
            hint="Check the network of this machine, or name its address for the others with --host.",
        ) from None


def _listen(host: str, port: int, option: str) -> socket.socket:
    """Bind a socket; `option` sets its port."""
    try:
        return bind(host, port)
    except OSError as error:
        raise InUse(
            Code.PORT_TAKEN,
            f"Can't listen on {host_in_url(host)}:{port}: {error.strerror}.",
            hint=f"Choose another {option}, or another --host of this machine.",
        ) from None


def _address(listener: socket.socket) -> str:
    """``host:port`` of a bound socket, as in a URL."""
    host, port = listener.getsockname()[:2]
    return f"{host_in_url(host)}:{port}"


class _Worker:
    def __init__(
        self,
        settings: Settings,
        options: WorkerOptions,
        membership: Membership,
        home: WorkerHome,
        name: str,
        listener: socket.socket,
        clients: socket.socket | None,
    ) -> None:
        """`listener` is bound to the data port, and `clients` to that for clients; None: it takes no clients."""
        self._settings = settings
        self._listener = listener
        front_door = _address(listener)
        self._ends_with_supervisor = options.ends_with_supervisor
        self._membership = membership
        self._home = home
        self._identity = home.identity
        self._removed = RemovedNodes()
        self._context = self._identity.server_context()
        hubs = all_hubs(settings)
        self._link = SupervisorLink(
            membership,
            self._identity,
            front_door,
            name,
            dict(options.labels or {}),
            machine_id(),
            self._load_certificate,
            allowed_hubs(hubs, settings),
            "" if clients is None else _address(clients),
        )
        self._pool = EnginePool()
        self._load = DoorLoad(self._pool)
        node = LocalNode(
            settings,
            hubs,
            all_engines(),
            self._load,
            LongWork(settings.hub_seconds),
            membership.node_id,
        )
        node.peers = self._peers = PeerLink(self._identity.client_context, OfferedFiles(), membership.host)
        self._agent = Agent(node, self._link.send, self._take_table, self._restart, self._wait_for_last_answers)
        self._served = ServedRecords(self._agent.report_served)
        self._agent.counted = self._served.counted
        self._restarts = False
        self._has_gateways = False
        """Whether workers send requests to the engines here, of which the supervisor does not know."""
        self._gateway = None if clients is None else self._make_gateway(clients)
        self._front_door = front_door
        self._stops_engines = False

    def _make_gateway(self, listener: socket.socket) -> NodeGateway:
        from xinference.gateway.node_gateway import NodeGateway  # most workers do without it

        return NodeGateway(self._settings, listener, self._membership.host, self._agent.ask_for, self._served.add)

    async def run(self) -> bool:
        """Work until the end; returns whether the program is to start again."""
        files = WeightFiles(self._peers.offers.path)
        door = FrontDoor(lambda: self._agent.targets, self._pool, self._settings.max_body_bytes, files, self._load)
        host, port = self._listener.getsockname()[:2]
        self._departure = Departure(
            self._agent,
            lambda: self._link.is_up,
            self._end_link,
            self._settings.run_dir,
            self._settings.grace_seconds,
        )
        self._server = front_door_server(
            door,
            self._context,
            host,
            port,
            self._removed,
            self._begin_end,
            self._departure.hurry,
            self._settings.drain_seconds,
        )
        keepers = await asyncio.to_thread(keepers_of, self._settings.run_dir)
        self._inherited = Inherited(pid for pids in keepers.values() for pid in pids)
        await self._agent.adopt_running(keepers)
        self._linking = asyncio.create_task(self._link.run(self._agent), name="link to the supervisor")
        tasks = [
            self._linking,
            asyncio.create_task(self._report(), name="reports of this machine"),
            asyncio.create_task(self._end_orphans(), name="time without a supervisor"),
        ]
        log.info(
            "xinference %s runs as node %s, with its data port at %s (home %s)",
            __version__,
            self._membership.node_id,
            self._front_door,
            self._settings.home,
        )
        if self._gateway is not None:
            self._gateway.begin()
            log.info("takes requests of clients at http://%s", _address(self._gateway.listener))
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            on_signals(self._departure.hurry)  # the handlers of the server are gone
            self._served.send()
            stops = self._ends_with_engines
            if stops:
                await self._departure.end_engines()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._agent.close()
            await self._pool.close()
            self._home.note_link(is_up=False)
            log.info("ended (%s)", "engines stopped" if stops else "engines keep running for the next worker")
        return self._restarts

    @property
    def _ends_with_engines(self) -> bool:
        """Whether the engines are stopped at the end, which has begun."""
        return self._server.ended_by == signal.SIGINT or self._stops_engines or self._departure.has_begun

    async def _begin_end(self) -> None:
        """Tell the supervisor while the engines still answer, then take no more requests of clients."""
        if self._ends_with_engines:
            log.info("ends, and stops its engines; Ctrl+C again ends them at once")
            await self._departure.begin(moves=not self._stops_engines)
        if self._gateway is not None:
            await self._gateway.stop()

    def _end_link(self) -> None:
        self._linking.cancel()

    def _restart(self) -> None:
        """End this program, and start it again with the package that is installed by then."""
        log.info("the supervisor requests a restart; the engines keep running")
        self._restarts = True
        self._server.stop(signal.SIGTERM)

    def _load_certificate(self) -> None:
        self._context.load_cert_chain(self._identity.certificate_path, self._identity.key_path)

    def _take_table(self, data: bytes) -> None:
        try:
            table = decode_table(data)
        except UNREADABLE as error:
            log.warning("a table of the supervisor cannot be read: %s", error)
            return
        self._removed.nodes = frozenset(table.removed)
        if self._membership.node_id in self._removed.nodes:
            self._end("this node was removed from the cluster")
        elif self._membership.node_id in table.ended:
            self._end("the supervisor ends this worker")
        if table.gateway is not None:
            self._has_gateways = True
            if self._gateway is not None:
                self._gateway.use(table.gateway)

    async def _wait_for_last_answers(self, replica_id: str) -> None:
        """Wait until no request of any gateway is at a replica; the supervisor has waited for its own requests."""
        if self._has_gateways:
            await self._load.wait_until_idle(replica_id, self._settings.drain_seconds)

    def _end(self, reason: str) -> None:
        """End this worker with its engines."""
        log.warning("%s: its engines are stopped", reason)
        self._stops_engines = True
        self._server.stop(signal.SIGTERM)

    async def _report(self) -> None:
        was_up: bool | None = None
        while True:
            self._inherited.reap()
            if self._link.is_up is not was_up:
                was_up = self._link.is_up
                self._home.note_link(is_up=was_up)
            if self._link.is_up:
                await self._agent.report_host()
                self._served.send()
            await self._link.wait_changed(seconds_to_report(self._membership.node_id, time.time()))

    async def _end_orphans(self) -> None:
        """Stop the engines that no supervisor has wanted for `orphan_seconds`."""
        limit = self._settings.orphan_seconds
        while limit:
            await asyncio.sleep(ORPHAN_CHECK_SECONDS)
            if self._link.down_seconds < limit:
                continue
            if self._ends_with_supervisor:
                self._end(f"no supervisor for {limit:g} s")
                return
            if self._agent.targets:
                log.warning("no supervisor for %g s: the engines are stopped", limit)
                await self._agent.stop_engines()
