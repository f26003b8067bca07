"""Chooses the nodes of launches by the current resources of each node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from xinference.cluster.members import Member, Members
from xinference.deployments.context import NodesView
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, join_names
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.launch.model_shape import ModelShape
from xinference.launch.place import shortest
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.nodes.node import Node, node_of
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch
from xinference.planning.spread import Candidate, Demand, lack_of_labels, lack_of_stranger, spread

log = logging.getLogger(__name__)


class Placer:
    """A `NodePlacer` of a supervisor.

    Args:
        nodes: of the server by their ids, with its own machine.
        occupancy: the memory of a node that is reserved for the others than a launch.
        runs_here: whether models run on the supervisor's own machine, too.
    """

    def __init__(
        self,
        members: Members,
        nodes: Mapping[str, Node],
        engines: Mapping[str, Engine],
        occupancy: Callable[[str, LaunchPlan], Occupancy],
        *,
        runs_here: bool,
    ) -> None:
        self._members = members
        self._nodes = nodes
        self._engines = engines
        self._occupancy = occupancy
        self._runs_here = runs_here

    def check(self, request: LaunchRequest) -> None:
        """See `NodePlacer.check`."""
        if request.labels and request.on_demand and self._runs_here:
            raise bad_request(
                "A model on demand can't ask for labels: it runs on the supervisor's machine, which has none.",
                hint="Leave out labels or on_demand, or start the supervisor with --no-models.",
            )

    def takes(self, launch: LaunchPlan) -> bool:
        """See `NodePlacer.takes`. A model on demand is evicted for others, which is decided for one machine."""
        return not (launch.request.on_demand and self._runs_here)

    def is_usable(self, node_id: str) -> bool:
        """See `NodePlacer.is_usable`."""
        if node_id == LOCAL_NODE:
            return self._runs_here
        return any(each.node_id == node_id and self._takes_replicas(each) for each in self._members)

    def allowed(self, request: LaunchRequest) -> list[str]:
        """See `NodePlacer.allowed`."""
        return [node_id for node_id in self._nodes if self.is_usable(node_id) and self._is_asked_for(node_id, request)]

    async def view(self, launch: ResolvedLaunch) -> NodesView:
        """See `NodePlacer.view`. A node that does not answer is left out."""
        usable = [node_id for node_id in self._nodes if self.is_usable(node_id)]
        found = await asyncio.gather(*(self._ask(node_id, launch) for node_id in usable))
        hosts = {node_id: each[0] for node_id, each in zip(usable, found, strict=True) if each is not None}
        paths = {
            node_id: each[1]
            for node_id, each in zip(usable, found, strict=True)
            if each is not None and each[1] is not None
        }
        return NodesView(hosts, paths)

    def now(self, view: NodesView) -> NodesView:
        """See `NodePlacer.now`. The supervisor's own machine does not report, and stays as it was."""
        reported = {each.node_id: each.node.last_host for each in self._members if self._takes_replicas(each)}
        hosts = {node_id: host for node_id, host in reported.items() if host is not None}
        if (here := view.hosts.get(LOCAL_NODE)) is not None:
            hosts[LOCAL_NODE] = here
        return NodesView(hosts, view.with_weights)

    def best(self, view: NodesView, request: LaunchRequest) -> str:
        """See `NodePlacer.best`."""
        allowed = [node_id for node_id in view.hosts if self._is_asked_for(node_id, request)]
        with_weights = [node_id for node_id in allowed if node_id in view.with_weights]
        if not allowed:
            raise self._no_node(request)
        return max(with_weights or allowed, key=lambda node_id: (view.hosts[node_id].free_memory, node_id))

    def size(
        self, launch: ResolvedLaunch, path: Path, shape: ModelShape, notes: tuple[str, ...], view: NodesView
    ) -> SizedPlan:
        """See `NodePlacer.size`."""
        request, engine = launch.request, self._engines[launch.engine]
        pins = self._pins(request)
        _check_ranks(request, engine, self._engines.values())

        def fit(node_id: str, count: int) -> SizedPlan:
            host = view.hosts[node_id]
            self._check_engine(launch, engine, host)
            one = launch.with_request(msgspec.structs.replace(request, replica=count))
            share = _share(launch, shape)
            memory = available(host, self._occupancy(node_id, launch))
            return size_launch(one, path, share, memory, engine.memory, notes)

        demand = Demand(launch.uid, request.replica, pins, request.labels, ranks=request.n_worker)
        chosen = spread(self._candidates(launch, view), demand, fit)
        return SizedPlan(launch, path, chosen.sizing, shortest(chosen.places), notes, shape.writes_calls)

    # -- nodes ------------------------------------------------------------------------------------------------

    def _candidates(self, launch: ResolvedLaunch, view: NodesView) -> list[Candidate]:
        here = None if launch.request.n_worker == 1 else _NO_WORKER
        found = [self._candidate(LOCAL_NODE, launch, view, {}, here)] if self._runs_here else []
        for member in self._members:
            refusal = self._members.lack_of(member) or _rank_refusal(launch.request, member.labels)
            found.append(
                replace(self._candidate(member.node_id, launch, view, member.labels, refusal), name=member.name)
            )
        return found

    def _candidate(
        self, node_id: str, launch: ResolvedLaunch, view: NodesView, labels: Mapping[str, str], refusal: str | None
    ) -> Candidate:
        host = view.hosts.get(node_id)
        if host is None:
            return Candidate(node_id, 0.0, labels=labels, refusal=refusal or "does not answer")
        memory = available(host, self._occupancy(node_id, launch))
        total = sum(gpu.memory_total for gpu in host.gpus) if launch.use_gpu else host.memory_total
        free = sum(gpu.memory_free for gpu in memory.gpus) if launch.use_gpu else memory.host_bytes
        return Candidate(
            node_id,
            min(1.0, free / total) if total else 0.0,
            len(host.gpus),
            labels,
            node_id in view.with_weights,
            refusal,
        )

    def _check_engine(self, launch: ResolvedLaunch, engine: Engine, host: Host) -> None:
        """Refuse a node on which the engine of a launch does not run.

        Raises:
            Problem: 400, with the reason.
        """
        support = engine.available(launch.version.spec, host)
        if not support:
            raise Problem(Code.DOES_NOT_FIT, f"{launch.engine} does not run there: {support.reason}.", stage="plan")
        if launch.use_gpu and not host.gpus:
            raise Problem(Code.DOES_NOT_FIT, f"it has no GPU: {host.no_gpu_reason or 'none is found'}.", stage="plan")

    def _is_asked_for(self, node_id: str, request: LaunchRequest) -> bool:
        """Whether the pins and the labels of a request allow a node."""
        pins = self._pins(request)
        lack = lack_of_labels(self._labels_of(node_id), request.labels)
        return lack is None and (not pins or node_id in pins)

    def _labels_of(self, node_id: str) -> Mapping[str, str]:
        """The labels of a node; the supervisor's own machine has none."""
        return next((each.labels for each in self._members if each.node_id == node_id), {})

    def _pins(self, request: LaunchRequest) -> tuple[str, ...]:
        """The ids of the nodes that a request names; a name that no node has stays as it is, and is refused so."""
        names = [name.strip() for name in (request.worker_ip or "").split(",") if name.strip()]
        return tuple(self._id_of(name) for name in names)

    def _id_of(self, name: str) -> str:
        if name in (LOCAL_NODE, *self._nodes):
            return name
        try:
            return self._members.get(name).node_id
        except Problem as problem:
            if problem.code != Code.NODE_NOT_FOUND:
                raise
            return name

    def _takes_replicas(self, member: Member) -> bool:
        return self._members.lack_of(member) is None

    async def _ask(self, node_id: str, launch: ResolvedLaunch) -> tuple[Host, Path | None] | None:
        try:
            node = node_of(self._nodes, node_id)  # it may have been removed a moment ago
            return await node.host(), await node.find_weights(launch)
        except Problem as problem:
            log.warning("node %s: %s", node_id, problem)
            return None

    def _no_node(self, request: LaunchRequest) -> Problem:
        pins = self._pins(request)
        named = [each for each in self._members if not pins or each.node_id in pins]
        states = [f"{each.node_id} ({each.name}) {self._lack(each, request)}" for each in named]
        strangers = [pin for pin in pins if pin not in self._nodes or (pin == LOCAL_NODE and not self._runs_here)]
        states += [f"{pin} {lack_of_stranger(pin)}" for pin in strangers]
        listed = "; ".join(states) or "no worker has joined"
        return Problem(
            Code.NO_NODE,
            f"No node can run {request.model_name} now: {listed}.",
            stage="plan",
            hint="`xinference cluster info` shows the nodes.",
        )

    def _lack(self, member: Member, request: LaunchRequest) -> str:
        lack = lack_of_labels(member.labels, request.labels)
        return lack or f"is {self._members.state_of(member)}"


#: Why the supervisor's own machine is no rank of a replica.
_NO_WORKER = (
    "is the supervisor, and only workers compute a replica together (start it with --no-models, and a worker beside it)"
)


def _check_ranks(request: LaunchRequest, engine: Engine, engines: Iterable[Engine]) -> None:
    """Refuse an engine that cannot compute a replica on several nodes.

    Raises:
        Problem: 400 ``engine_unsupported``.
    """
    if request.n_worker > 1 and engine.table.ranks_refusal is not None:
        able = [each.table.engine for each in engines if each.table.ranks_refusal is None]
        raise bad_request(
            f"{engine.table.engine} can't compute a replica on {request.n_worker} machines: "
            f"{engine.table.ranks_refusal}.",
            hint=f"{join_names(able)} can do this. Without --n-worker, each of the --replica copies is on one machine.",
            code=Code.ENGINE_UNSUPPORTED,
        )


def _share(launch: ResolvedLaunch, shape: ModelShape) -> ModelShape:
    """What one node has of a model.

    Raises:
        Problem: 400 ``does_not_fit``, the layers cannot be split over the nodes.
    """
    nodes = launch.request.n_worker
    if nodes == 1:
        return shape
    if not launch.use_gpu and not shape.splits_over(nodes):
        raise Problem(
            Code.DOES_NOT_FIT,
            f"the model's {shape.heads} heads can't be split over {nodes} nodes without GPUs.",
            stage="plan",
            hint="Use 2 or 4 nodes.",
        )
    return shape.of_rank(nodes)


def _rank_refusal(request: LaunchRequest, labels: Mapping[str, str]) -> str | None:
    """Why a node may be no rank of a replica; None: it may."""
    if request.n_worker == 1 or request.allow_plain_gang or labels.get("fabric") == "private":
        return None
    return (
        "has no label fabric=private, and the nodes of one replica connect without encryption (start the workers of a "
        "private network with --label fabric=private, or launch with --allow-plain-gang)"
    )
