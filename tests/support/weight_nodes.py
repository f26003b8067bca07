"""Nodes with their own caches and front doors in one process, which copy weights from each other over real TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.support.cluster import linked
from xinference.cluster.weights import ClusterWeights, WeightNode
from xinference.config import Settings
from xinference.gateway.weight_door import WeightDoor
from xinference.hubs.base import Hub
from xinference.hubs.repositories.huggingface import HuggingFaceHub
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, public_bytes
from xinference.nodes.local import LocalNode
from xinference.nodes.node import Node, Step
from xinference.nodes.offered_files import OfferedFiles
from xinference.nodes.peer_link import PeerLink
from xinference.routing.interfaces import NoLoad
from xinference.work_threads import LongWork


class OwnCacheHub(HuggingFaceHub):
    """Hugging Face with a cache of one node: the library's variables are those of the whole process."""

    def __init__(self, home: Path, *, offline: bool = False) -> None:
        self._own = home / "hub"
        super().__init__(Settings(home=home, offline=offline))

    @property
    def _root(self) -> Path:
        return self._own


@dataclass
class WeightMachine:
    """A node; its door is open."""

    node_id: str
    home: Path
    hub: Hub
    node: LocalNode
    offers: OfferedFiles
    identity: NodeIdentity
    door: WeightDoor
    port: int
    removed: set[tuple[str, int]]
    as_seen: Node | None = None
    """The node as the supervisor has it: behind a link."""


@dataclass
class TakenReport:
    """A `FetchReport` that remembers."""

    begun: list[tuple[Step, str | None]] = field(default_factory=list)
    files: list[tuple[str, int, int | None]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def begin(self, step: Step, content: str | None) -> None:
        self.begun.append((step, content))

    def progress(self, step: Step, file: str, done: int, total: int | None) -> None:
        self.files.append((file, done, total))

    def count_from(self, source: str) -> None:
        self.sources.append(source)


@dataclass
class WeightSite:
    """The nodes of a cluster, and the supervisor's part in their fetches."""

    machines: list[WeightMachine]
    weights: ClusterWeights
    hubs: dict[str, frozenset[str] | None]
    """By node id, as its hello says."""

    def __iter__(self) -> Iterator[WeightMachine]:
        return iter(self.machines)


def node_identity(folder: Path, node_id: str) -> NodeIdentity:
    """The identity of a node of the cluster whose authority is in `folder`."""
    now = datetime.now(UTC)
    authority = ClusterAuthority.load_or_create(folder / "authority", now)
    identity = NodeIdentity(folder / node_id / "identity")
    identity.save(authority.issue(identity.signing_request(), node_id, now), public_bytes(authority.certificate))
    return identity


@asynccontextmanager
async def weight_machine(folder: Path, number: int, *, offline: bool = False) -> AsyncIterator[WeightMachine]:
    """A node with an open door."""
    node_id = f"n{number:012d}"
    home = folder / node_id
    hub = OwnCacheHub(home, offline=offline)
    identity, offers, removed = node_identity(folder, node_id), OfferedFiles(), set[tuple[str, int]]()
    node = LocalNode(Settings(home=home), {"huggingface": hub}, {}, NoLoad(), LongWork(60), node_id)
    node.peers = PeerLink(identity.client_context, offers)
    door = WeightDoor(offers.path, identity.server_context(), removed)
    port = door.open("127.0.0.1", 0)
    try:
        yield WeightMachine(node_id, home, hub, node, offers, identity, door, port, removed)
    finally:
        await door.close()


@asynccontextmanager
async def weight_site(folder: Path, count: int, offline: frozenset[int] = frozenset()) -> AsyncIterator[WeightSite]:
    """`count` nodes, each behind a link; those of the numbers `offline` may not connect to a hub."""
    async with AsyncExitStack() as stack:
        machines = []
        for number in range(1, count + 1):
            machine = await stack.enter_async_context(weight_machine(folder, number, offline=number in offline))
            machine.as_seen = (await stack.enter_async_context(linked(machine.node))).remote
            machines.append(machine)
        hubs: dict[str, frozenset[str] | None] = {
            each.node_id: frozenset() if number in offline else frozenset({"huggingface"})
            for number, each in enumerate(machines, 1)
        }
        nodes = {each.node_id: each.as_seen for each in machines if each.as_seen is not None}

        def linked_nodes() -> list[WeightNode]:
            return [
                WeightNode(each.node_id, f"box{number}", "127.0.0.1", each.port, hubs[each.node_id])
                for number, each in enumerate(machines, 1)
            ]

        yield WeightSite(machines, ClusterWeights(nodes, linked_nodes), hubs)
