"""The cluster of one supervisor: accepts nodes, manages them, and serves the requests of operators."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence

import msgspec

from xinference.cluster.door import ClusterDoor
from xinference.cluster.gateway_tables import GatewayTables
from xinference.cluster.members import Member, Members
from xinference.cluster.placer import Placer
from xinference.cluster.ray_room import RayRoom
from xinference.cluster.ray_workers import RayWorkers
from xinference.cluster.rows import ClusterRows
from xinference.cluster.upgrade import upgrade
from xinference.cluster.weights import ClusterWeights, WeightNode
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import InUse, not_found
from xinference.fabric.stream_fabric import StreamFabric
from xinference.hardware.machine_id import machine_id
from xinference.hosts import LOCAL_NODE, host_in_url
from xinference.launch.plan import LaunchPlan
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, fingerprint, now, public_bytes
from xinference.nodes.cluster_table import ClusterTable, RemovedNodes
from xinference.nodes.gang import replica_of
from xinference.nodes.join_tokens import JoinToken, TokenRow, create_token
from xinference.nodes.membership import NodeState
from xinference.nodes.node import Node
from xinference.nodes.offered_files import OfferedFiles
from xinference.nodes.remote import LINK_SECONDS
from xinference.planning.eviction import Bytes
from xinference.planning.occupancy import Occupancy
from xinference.store.database import Store

log = logging.getLogger(__name__)
#: Interval at which the supervisor's own certificate is looked at, in seconds.
RENEWAL_SECONDS = 3600.0
#: Time for the end of a worker, beside that for its engines, in seconds.
END_SECONDS = 10.0


class Cluster:
    """All that a server needs of its cluster. One server owns it, the one with the highest epoch."""

    def __init__(
        self, settings: Settings, store: Store, nodes: MutableMapping[str, Node], hubs: frozenset[str] | None = None
    ) -> None:
        """`nodes` gets the nodes that join; `hubs` are those from which this machine may fetch; None: all."""
        self._hubs = hubs
        self._settings = settings
        self._rows = ClusterRows(store)
        folder = settings.home / "cluster"
        self._authority = ClusterAuthority.load_or_create(folder / "authority", now())
        self.identity = NodeIdentity(settings.identity_dir)
        self.supervisor_id = self._rows.supervisor_id()
        self._renew()
        self._fabric = StreamFabric()
        epoch = self._rows.next_epoch()
        self.members = Members(
            self._fabric,
            epoch,
            nodes,
            settings.node_lost_seconds,
            lambda process_id: replica_of(process_id) in store.replica_ids(),
        )
        for row in self._rows.nodes():
            if row.removed is None:
                self.members.add(row)
        self.weights = ClusterWeights(nodes, self._weight_nodes)
        self.removed = RemovedNodes()
        """The certificates that are refused."""
        self.offers = OfferedFiles()
        """The weights that this machine offers to the workers."""
        self.weight_port = 0
        """Where workers get them; 0: nowhere."""
        machine = "" if settings.no_models else machine_id()
        self._door = ClusterDoor(
            self._rows, self._authority, self.members, self._fabric, epoch, machine, self.identity.client_context
        )
        self.gateways = GatewayTables(self.members, self._publish)
        self._door.greeted = self.gateways.changed
        self.port = settings.supervisor_port
        """The port to which workers connect."""
        self._ended: set[str] = set()
        """The nodes whose workers are told to end."""
        self.ray = RayWorkers(settings, self) if settings.ray_address else None
        """The workers on the nodes of a Ray cluster; None: there is no Ray."""
        self._contexts: list[ssl.SSLContext] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the door.

        Raises:
            InUse: the port is in use.
        """
        context = self.server_context(admits_strangers=True)
        host = self._settings.host
        try:
            self.port = await self._door.open(host, self.port, context)
        except OSError as error:
            raise InUse(
                Code.PORT_TAKEN,
                f"Can't listen for workers on {host_in_url(host)}:{self.port}: {os.strerror(error.errno or 0)}.",
                hint="Choose another --supervisor-port, or stop the program that uses this one.",
            ) from None
        self._publish()
        self._tasks = [
            asyncio.create_task(self.members.run(), name="members of the cluster"),
            asyncio.create_task(self._renew_periodically(), name="certificate of the supervisor"),
        ]
        if self.ray is not None:
            self.ray.start()
        log.info("workers connect to port %d; `xinference cluster token create` prints how", self.port)

    async def wait_for_nodes(self) -> None:
        """Wait a moment for the workers, which connect again after a restart of this server."""
        await self.members.wait_linked(LINK_SECONDS)

    def begin_end(self) -> None:
        """The server stops all engines, and ends: it does not wait for the engines of nodes that are out of reach."""
        names = ", ".join(f"{each.node_id} ({each.name})" for each in self.members.begin_end() if each.node.replica_ids)
        if names:
            log.warning(
                "out of reach: %s; the engines there are stopped when their workers have had no supervisor for "
                "XINFERENCE_ORPHAN_SECONDS",
                names,
            )

    async def close(self, *, ends_workers: bool = False) -> None:
        """Close the door and all links. The engines of the nodes run on.

        `ends_workers`: the workers that were started through Ray end, with their engines.
        """
        if self.ray is not None:
            if ends_workers:
                await self._end_workers(self.ray.node_ids())
            await self.ray.close()
        self.gateways.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._door.close()
        await self.members.close()

    def server_context(self, *, admits_strangers: bool = False) -> ssl.SSLContext:
        """TLS for what listens on this machine; it follows the renewals of the certificate."""
        context = self.identity.server_context(admits_strangers=admits_strangers)
        self._contexts.append(context)
        return context

    def _weight_nodes(self) -> list[WeightNode]:
        """The nodes whose links are up, and this machine."""
        here = WeightNode(LOCAL_NODE, "supervisor", "", self.weight_port, self._hubs)
        members = (each for each in self.members if each.known.link_is_up)
        return [here, *(each.weight_node() for each in members if each.front_door)]

    def placer(
        self,
        nodes: Mapping[str, Node],
        engines: Mapping[str, Engine],
        occupancy: Callable[[str, LaunchPlan], Occupancy],
    ) -> Placer:
        """What chooses the nodes of launches."""
        return Placer(self.members, nodes, engines, occupancy, runs_here=not self._settings.no_models)

    @property
    def authority(self) -> bytes:
        """The certificate of the cluster's authority, as PEM: public."""
        return public_bytes(self._authority.certificate)

    def watch(self, changed: Callable[[Member, NodeState], None], leaves: Callable[[Member], None]) -> None:
        """Call `changed` with each member whose state has changed, and with its state before.

        `leaves`: see `Members.leaves`.
        """
        self.members.changed, self.members.leaves = changed, leaves

    def note_reserved(self, reserved: Callable[[str], Sequence[Bytes]]) -> None:
        """Reserve in Ray what `reserved` gives for a node: bytes of each device, for each deployment there."""
        if self.ray is not None:
            self.ray.reserved = reserved

    def room(self, reserved: Callable[[], Collection[str]]) -> RayRoom | None:
        """What asks for further nodes when a launch has no room; None: nobody can be asked.

        `reserved`: the uids of the deployments with reserved memory.
        """
        seconds = self._settings.ray_autoscaler_seconds
        if self.ray is None or not seconds:
            return None
        room = RayRoom(self.members, seconds, reserved)
        self.ray.wants = room.wants
        return room

    # -- for operators ----------------------------------------------------------------------------------------

    def create_token(self, seconds: float, uses: int | None) -> tuple[JoinToken, TokenRow]:
        """Make a token with which machines can join."""
        token, row = create_token(fingerprint(self._authority.certificate), time.time(), seconds, uses)
        self._rows.add_token(row)
        return token, row

    def tokens(self) -> list[TokenRow]:
        """The tokens without their secrets."""
        return self._rows.tokens()

    def revoke_token(self, token_id: str) -> None:
        """Revoke a token: no further machine can join with it.

        Raises:
            Problem: 404, there is none of this id.
        """
        if not self._rows.revoke_token(token_id):
            raise not_found(
                f"There is no join token {token_id}.",
                hint="`xinference cluster token list` shows them.",
                code=Code.JOIN_TOKEN_NOT_FOUND,
            )

    def drain(self, name: str, *, drained: bool) -> Member:
        """Place nothing new on a node, or again.

        Raises:
            Problem: 404 ``node_not_found``.
        """
        member = self.members.get(name)
        self._rows.set_drained(member.node_id, drained)
        self.members.set_drained(member.node_id, drained=drained)
        return member

    async def upgrade(self, name: str) -> Member:
        """Restart the worker of a node; its engines run on.

        Raises:
            Problem: 404 ``node_not_found``; as `upgrade.upgrade`.
        """
        member = self.members.get(name)
        before = member.version
        await upgrade(self.members, member)
        log.info("node %s (%s) runs %s, was %s", member.node_id, member.name, member.version, before)
        return member

    async def remove(self, name: str) -> Member:
        """Remove a node permanently: its link is closed, and its certificate refused.

        Raises:
            Problem: 404 ``node_not_found``.
        """
        member = self.members.get(name)
        self._rows.remove_node(member.node_id)
        await self._forget(member.node_id)
        log.info("node %s (%s) is removed", member.node_id, member.name)
        return member

    async def _forget(self, node_id: str) -> None:
        """Close the link of a node whose row is removed."""
        self._door.removed.add(node_id)
        self._publish()
        await self.members.remove(node_id)
        self._fabric.cut(node_id)

    # -- workers on Ray ---------------------------------------------------------------------------------------

    @property
    def removed_nodes(self) -> Collection[str]:
        """See `ray_workers.Owner.removed_nodes`."""
        return self._door.removed

    @property
    def given_back(self) -> Collection[str]:
        """See `ray_workers.Owner.given_back`."""
        return self._rows.given_back()

    def delete_token(self, token_id: str) -> None:
        """See `ray_workers.Owner.delete_token`."""
        self._rows.delete_token(token_id)

    async def give_back(self, node_id: str) -> None:
        """See `ray_workers.Owner.give_back`."""
        await self._end_workers([node_id])
        self._rows.give_back(node_id)
        await self._forget(node_id)

    async def _end_workers(self, node_ids: Collection[str]) -> None:
        """Tell workers to end, and wait until their links are down, at most as long as engines may take to stop."""
        self._ended.update(node_ids)
        self._publish()
        try:
            async with asyncio.timeout(self._settings.stop_seconds + END_SECONDS):
                await self._fabric.wait_ended(node_ids)
        except TimeoutError:
            log.warning("of the workers %s some have not ended", ", ".join(sorted(node_ids)))
        self._ended.difference_update(node_ids)
        self._publish()

    # -- certificates -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Tell all nodes who is refused and who ends, and those that serve clients the routes and keys."""
        self.removed.nodes = frozenset(self._door.removed)
        removed, ended = tuple(sorted(self._door.removed)), tuple(sorted(self._ended))
        table = ClusterTable(removed, self.gateways.current(), ended)
        self._fabric.publish(msgspec.msgpack.encode(table))

    async def _renew_periodically(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            if self._renew():
                for context in self._contexts:
                    context.load_cert_chain(self.identity.certificate_path, self.identity.key_path)

    def _renew(self) -> bool:
        """Make the supervisor's own certificate, unless it has a good one; returns whether it was made."""
        if not self.identity.is_due(now()):
            return False
        request = self.identity.signing_request()
        certificate = self._authority.issue(request, self.supervisor_id, now())
        self.identity.save(certificate, self.authority)
        return True
