"""The cluster of one supervisor: opens its door, keeps its nodes, and answers what operators ask."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping, MutableMapping

import msgspec

from xinference.cluster.door import ClusterDoor
from xinference.cluster.members import Member, Members
from xinference.cluster.placer import Placer
from xinference.cluster.rows import ClusterRows
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import InUse, not_found
from xinference.fabric.stream_fabric import StreamFabric
from xinference.hardware.machine_id import machine_id
from xinference.hosts import host_in_url
from xinference.launch.plan import LaunchPlan
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, fingerprint, now, public_bytes
from xinference.nodes.cluster_table import ClusterTable
from xinference.nodes.gang import replica_of
from xinference.nodes.join_tokens import JoinToken, TokenRow, create_token
from xinference.nodes.membership import NodeState
from xinference.nodes.node import Node
from xinference.planning.occupancy import Occupancy
from xinference.store.database import Store

log = logging.getLogger(__name__)
#: Interval at which the supervisor's own certificate is looked at, in seconds.
RENEWAL_SECONDS = 3600.0


class Cluster:
    """All that a server needs of its cluster. One server owns it, the one with the highest epoch."""

    def __init__(self, settings: Settings, store: Store, nodes: MutableMapping[str, Node]) -> None:
        """`nodes` gets the nodes that join."""
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
        machine = "" if settings.no_models else machine_id()
        self._door = ClusterDoor(self._rows, self._authority, self.members, self._fabric, epoch, machine)
        self.port = settings.supervisor_port
        """The port to which workers connect."""
        self._context: ssl.SSLContext | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the door.

        Raises:
            InUse: the port is in use.
        """
        self._context = self.identity.server_context(admits_strangers=True)
        host = self._settings.host
        try:
            self.port = await self._door.open(host, self.port, self._context)
        except OSError as error:
            raise InUse(
                Code.PORT_TAKEN,
                f"Can't listen for workers on {host_in_url(host)}:{self.port}: {error.strerror}.",
                hint="Choose another --supervisor-port, or stop the program that uses this one.",
            ) from None
        self._publish()
        self._tasks = [
            asyncio.create_task(self.members.run(), name="members of the cluster"),
            asyncio.create_task(self._renew_periodically(), name="certificate of the supervisor"),
        ]
        log.info("workers connect to port %d; `xinference cluster token create` prints how", self.port)

    async def close(self) -> None:
        """Close the door and all links. The engines of the nodes run on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._door.close()
        await self.members.close()

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

    def watch(self, changed: Callable[[Member, NodeState], None]) -> None:
        """Call `changed` with each member whose state has changed, and with its state before."""
        self.members.changed = changed

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

    async def remove(self, name: str) -> Member:
        """Remove a node permanently: its link is closed, and its certificate refused.

        Raises:
            Problem: 404 ``node_not_found``.
        """
        member = self.members.get(name)
        self._rows.remove_node(member.node_id)
        self._door.removed.add(member.node_id)
        self._publish()
        await self.members.remove(member.node_id)
        self._fabric.cut(member.node_id)
        log.info("node %s (%s) is removed", member.node_id, member.name)
        return member

    # -- certificates -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Tell all nodes whose certificates are refused."""
        table = ClusterTable(tuple(sorted(self._door.removed)))
        self._fabric.publish(msgspec.msgpack.encode(table))

    async def _renew_periodically(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            if self._renew() and self._context is not None:
                self._context.load_cert_chain(self.identity.certificate_path, self.identity.key_path)

    def _renew(self) -> bool:
        """Make the supervisor's own certificate, unless it has a good one; returns whether it was made."""
        if not self.identity.is_due(now()):
            return False
        request = self.identity.signing_request()
        certificate = self._authority.issue(request, self.supervisor_id, now())
        self.identity.save(certificate, self.authority)
        return True
