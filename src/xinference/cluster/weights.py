"""Where a node gets the weights of a launch: from other nodes that have them, or from the hub, one node at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.hubs.selection import wanted_names
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.nodes.node import LOST_NODE, FetchReport, Node, OfferedWeights, Peer, PeerWeights, Report, node_of

log = logging.getLogger(__name__)
#: Maximum number of nodes that one node copies from.
MAX_PEERS = 4
#: Problems of a node that does not reach the hub: another node may.
_NO_ACCESS = frozenset({Code.OFFLINE, Code.HUB_UNREACHABLE})


@dataclass(frozen=True)
class WeightNode:
    """What is known of a node that may have weights, or may get them."""

    node_id: str
    name: str
    host: str
    """See `Peer.host`."""
    port: int
    """0: nobody can copy from it."""
    hubs: frozenset[str] | None = None
    """The hubs from which it may fetch; None: not known, so it may try each."""

    def may_fetch(self, hub: str) -> bool:
        """Whether the node may ask a hub."""
        return self.hubs is None or hub in self.hubs


class ClusterWeights:
    """Gets weights for nodes.

    Args:
        nodes: of the server by their ids.
        linked: the nodes that answer now, with the supervisor's own machine.
    """

    def __init__(self, nodes: Mapping[str, Node], linked: Callable[[], Iterable[WeightNode]]) -> None:
        self._nodes = nodes
        self._linked = linked
        self._leases: dict[str, _Lease] = {}
        self._copies: Counter[str] = Counter()
        """By node: the copies from it that are under way."""

    async def fetch(self, node_id: str, launch: ResolvedLaunch, report: FetchReport) -> Path:
        """The path of a launch's weights on a node, which gets them if it does not have them.

        Raises:
            Problem: as `Node.fetch_weights`; 503 ``node_unknown``.
        """
        node, source = node_of(self._nodes, node_id), launch.origin
        if isinstance(source, Path) or source.hub == "local":
            return await node.fetch_weights(launch, report)
        useless: dict[str, Problem] = {}
        while True:
            if path := await node.find_weights(launch):
                return path
            if weights := await self._offers(node_id, launch, useless):
                copied = await self._copy(node, launch, weights, report)
                if isinstance(copied, Path):
                    return copied
                useless.update((peer.node_id, copied) for peer in weights.peers)
                continue
            async with self._lease(node_id, launch, source, report):
                # Whoever had the lease before has the weights now.
                if await self._offers(node_id, launch, useless) is None:
                    fetched_by, path = await self._from_hub(node_id, launch, source, report)
                    if fetched_by == node_id:
                        return path
                    if fetched_by in useless:  # the only machine that reaches the hub, and no copy from it succeeds
                        raise useless[fetched_by]

    async def fetch_version(
        self, version: ModelVersion, source: Source, report: FetchReport, node_id: str = LOCAL_NODE
    ) -> Path:
        """As `fetch`, without a launch: for a download. It waits for a launch that fetches the same, and copies then.

        Raises:
            Problem: as `fetch`.
        """
        request = LaunchRequest(model_name=version.family.model_name)
        draft = LaunchDraft("", request, version, engine="", use_gpu=False, threads=1)
        return await self.fetch(node_id, ResolvedLaunch(draft, source), report)

    async def _copy(
        self, node: Node, launch: ResolvedLaunch, weights: PeerWeights, report: FetchReport
    ) -> Path | Problem:
        """Copy from the peers; a problem: they do not give everything, and what has arrived is kept."""
        report.count_from("peer")
        sources = [peer.node_id for peer in weights.peers]
        self._copies.update(sources)
        try:
            return await node.fetch_weights(launch, report, weights)
        except Problem as problem:
            if problem.code not in (Code.PEER_COPY_FAILED, Code.PEER_REFUSED):
                raise
            log.warning("node %s: %s", node.node_id, problem)
            return problem
        finally:
            self._copies.subtract(sources)

    async def _from_hub(
        self, node_id: str, launch: ResolvedLaunch, source: Source, report: FetchReport
    ) -> tuple[str, Path]:
        """Fetch from the hub on the node, or on another one if the node does not reach the hub.

        Raises:
            Problem: the hub's; that of the first node that has tried, if no node reaches the hub; the node is lost.
        """
        report.count_from(source.hub)
        linked = {each.node_id: each for each in self._linked()}
        # The supervisor's own machine is the last: it may have little room for weights.
        others = sorted((each for each in linked if each != node_id and linked[each].port), key=_local_last)
        first: Problem | None = None
        for candidate in (node_id, *others):
            if candidate in linked and not linked[candidate].may_fetch(source.hub):
                continue
            try:
                return candidate, await node_of(self._nodes, candidate).fetch_weights(launch, report)
            except Problem as problem:
                is_lost = candidate != node_id and problem.code in LOST_NODE
                if problem.code not in _NO_ACCESS and not is_lost:
                    raise
                log.warning("node %s has not fetched from %s: %s", candidate, source.hub, problem)
                first = first or problem
        raise first or _no_access(launch, source)

    async def _offers(self, node_id: str, launch: ResolvedLaunch, useless: Container[str]) -> PeerWeights | None:
        """The content that most other nodes but the `useless` ones have, from those with the least to do."""
        others = [each for each in self._linked() if each.node_id != node_id and each.port]
        asked = [each for each in others if each.node_id not in useless]
        offers = await asyncio.gather(*(self._ask(each, launch) for each in asked))
        found = [(each, offer) for each, offer in zip(asked, offers, strict=True) if offer is not None]
        if not found:
            return None
        digest = Counter(offer.digest for _, offer in found).most_common(1)[0][0]
        same = sorted(
            ((each, offer) for each, offer in found if offer.digest == digest),
            key=lambda pair: (self._copies[pair[0].node_id], pair[0].node_id),
        )
        peers = tuple(Peer(each.node_id, each.name, each.host, each.port) for each, _ in same[:MAX_PEERS])
        return PeerWeights(digest, same[0][1].listing, peers)

    async def _ask(self, asked: WeightNode, launch: ResolvedLaunch) -> OfferedWeights | None:
        node = self._nodes.get(asked.node_id)
        try:
            return None if node is None else await node.offer_weights(launch)
        except Problem as problem:  # its link is down, or it is of an earlier release
            log.info("node %s offers no weights: %s", asked.node_id, problem)
            return None

    @contextlib.asynccontextmanager
    async def _lease(self, node_id: str, launch: ResolvedLaunch, source: Source, report: Report) -> AsyncIterator[None]:
        """Wait until no other node fetches these weights from the hub, and be the one that may."""
        key = _key(launch, source)
        lease = self._leases.setdefault(key, _Lease())
        lease.users += 1
        try:
            if lease.lock.locked():
                what = f"waiting for {lease.holder}, which fetches {launch.version.version_id} from {source.hub}"
                report.begin("fetch", what)
            async with lease.lock:
                lease.holder = next((each.name for each in self._linked() if each.node_id == node_id), node_id)
                yield
        finally:
            lease.users -= 1
            if not lease.users:
                del self._leases[key]


class _Lease:
    """Who may fetch certain weights from the hub."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.holder = ""


def _key(launch: ResolvedLaunch, source: Source) -> str:
    """Equal for launches that need the same files of a hub."""
    names = wanted_names(launch.version, source)
    return repr((source.hub, source.model_id, source.revision, names, launch.version.spec.model_format))


def _local_last(node_id: str) -> tuple[bool, str]:
    return node_id == LOCAL_NODE, node_id


def _no_access(launch: ResolvedLaunch, source: Source) -> Problem:
    return Problem(
        Code.OFFLINE,
        f"{launch.version.version_id} is on no machine of the cluster, and no machine may connect to {source.hub}.",
        stage="fetch",
        hint="Unset XINFERENCE_OFFLINE on one machine, or put the weights into the shared folder "
        "(XINFERENCE_SHARED_CACHE).",
    )
