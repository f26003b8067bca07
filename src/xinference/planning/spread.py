"""Chooses the node and the devices of each replica of a launch on a cluster, or refuses it node by node. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.launch.place import Place
from xinference.launch.plan import SizedPlan, Sizing

#: Two free shares that differ by less than this are equal: then a node with the weights is better.
EQUAL_SHARE = 0.05

Fit = Callable[[str, int], SizedPlan]
"""The plan of so many replicas on a node, within the memory that is free there.

With several nodes for one replica, it is the plan of one rank. It raises `Problem`: ``does_not_fit``, or that the
engine does not run there.
"""


@dataclass(frozen=True)
class Candidate:
    """A node on which replicas may be placed."""

    node_id: str
    free_share: float
    """Free part of the memory that a model may use, 0 to 1."""
    gpus: int = 0
    """Number of its devices."""
    labels: Mapping[str, str] = field(default_factory=dict)
    has_weights: bool = False
    refusal: str | None = None
    """Why nothing may be placed on it now, such as "is DRAINING"; completes a sentence that its id begins."""
    name: str = ""
    """That of its machine; empty: it has none but the id."""

    def __str__(self) -> str:
        return f"{self.node_id} ({self.name})" if self.name else self.node_id


@dataclass(frozen=True)
class Demand:
    """The requirements of a launch on nodes."""

    uid: str
    replicas: int
    pins: tuple[str, ...] = ()
    """The only nodes that may be used; empty: all."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have with these values."""
    pack: bool = False
    """Fill a node before the next one is used."""
    ranks: int = 1
    """Nodes that compute one replica together."""


@dataclass(frozen=True)
class Spread:
    """The places of all replicas."""

    places: tuple[Place, ...]
    sizing: Sizing
    """That of the node with the smallest context and the fewest slots: all replicas promise the same."""
    sizings: Mapping[str, Sizing]
    """Node -> the sizing of a replica within its memory; its share of each device's memory depends on the node."""


def spread(candidates: Sequence[Candidate], demand: Demand, fit: Fit) -> Spread:
    """Choose the places of all replicas, or of none.

    One replica goes to each node before a second one does; the most free memory is first, and of equal nodes the one
    that has the weights. `Demand.pack` turns this round.

    Raises:
        Problem: 400 ``does_not_fit``, 503 ``no_node``; both name each node and what it lacks.
    """
    return _Spreader(candidates, demand, fit).spread()


def lack_of_labels(labels: Mapping[str, str], asked: Mapping[str, str]) -> str | None:
    """Why a node with these labels may not be used, such as "has no label gpu, …"; None: it has all that are asked."""
    for name, value in asked.items():
        if labels.get(name) != value:
            has = f"has {name}={labels[name]}" if name in labels else f"has no label {name}"
            return f"{has}, and the launch asks for {name}={value}"
    return None


def lack_of_stranger(name: str) -> str:
    """Why nothing runs on what a launch names and that is no node."""
    if name == LOCAL_NODE:
        return "is the supervisor's machine, which runs no models (--no-models)"
    return "is not a node of this cluster"


_ROOM_HINT = "Use fewer replicas, a smaller quantization or size, or other nodes; or terminate another model."
_NODES_HINT = "`xinference cluster info` shows the nodes and their states. Name other nodes or labels, or none."


class _Spreader:
    """Chooses the places of one launch."""

    def __init__(self, candidates: Sequence[Candidate], demand: Demand, fit: Fit) -> None:
        self._candidates = candidates
        self._demand = demand
        self._fit = fit
        self._plans: dict[tuple[str, int], SizedPlan | Problem] = {}
        self._counts = dict.fromkeys((each.node_id for each in candidates), 0)
        self._allowed = [each for each in candidates if self._lack(each) is None]

    def spread(self) -> Spread:
        groups: list[tuple[str, ...]] = []
        for _ in range(self._demand.replicas):
            group = self._next_group()
            if group is None:
                raise self._refusal(len(groups))
            for node_id in group:
                self._counts[node_id] += 1
            groups.append(group)
        plans = {node_id: self._plan(node_id, count) for node_id, count in self._counts.items() if count}
        sizings = {node_id: plan.sizing for node_id, plan in plans.items() if isinstance(plan, SizedPlan)}
        smallest = min(sizings.values(), key=lambda sizing: (sizing.context_length, sizing.slots))
        return Spread(self._places(groups, plans), smallest, sizings)

    # -- choice -----------------------------------------------------------------------------------------------

    def _next_group(self) -> tuple[str, ...] | None:
        """The nodes of the next replica by rank; None: no nodes have room."""
        if self._demand.ranks == 1:
            return next(((each.node_id,) for each in self._ordered(self._allowed) if self._has_room(each)), None)
        for group in self._groups_of_equals():
            nodes = [each.node_id for each in self._ordered(group) if self._has_room(each)]
            if len(nodes) >= self._demand.ranks:
                return tuple(nodes[: self._demand.ranks])
        return None

    def _groups_of_equals(self) -> list[list[Candidate]]:
        """The nodes that may compute one replica together: they have the same labels and number of devices."""
        groups: dict[object, list[Candidate]] = {}
        for each in self._ordered(self._allowed):
            groups.setdefault((frozenset(each.labels.items()), each.gpus), []).append(each)
        return list(groups.values())

    def _ordered(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates, best first."""
        sign = -1 if self._demand.pack else 1

        def order(each: Candidate) -> tuple[object, ...]:
            share = round(each.free_share / EQUAL_SHARE)
            return (sign * self._counts[each.node_id], -sign * share, not each.has_weights, each.node_id)

        return sorted(candidates, key=order)

    def _has_room(self, each: Candidate) -> bool:
        return isinstance(self._plan(each.node_id, self._counts[each.node_id] + 1), SizedPlan)

    def _plan(self, node_id: str, count: int) -> SizedPlan | Problem:
        if (node_id, count) not in self._plans:
            try:
                self._plans[node_id, count] = self._fit(node_id, count)
            except Problem as problem:
                self._plans[node_id, count] = problem
        return self._plans[node_id, count]

    def _places(self, groups: Sequence[tuple[str, ...]], plans: Mapping[str, SizedPlan | Problem]) -> tuple[Place, ...]:
        used = dict.fromkeys(plans, 0)

        def place(node_id: str, ranks: tuple[Place, ...] = ()) -> Place:
            plan, position = plans[node_id], used[node_id]
            used[node_id] += 1
            assert isinstance(plan, SizedPlan)  # `_has_room` has asked for it
            return Place(node_id, plan.devices_of(position), ranks)

        return tuple(place(head, tuple(place(each) for each in rest)) for head, *rest in groups)

    # -- refusal ----------------------------------------------------------------------------------------------

    def _lack(self, each: Candidate) -> str | None:
        """Why a node may not be used, whatever its memory; None: it may."""
        if self._demand.pins and each.node_id not in self._demand.pins:
            return "is not one of the nodes that the launch names"
        return lack_of_labels(each.labels, self._demand.labels) or each.refusal

    def _refusal(self, placed: int) -> Problem:
        demand = self._demand
        named = [each for each in self._candidates if not demand.pins or each.node_id in demand.pins]
        lines = [f"{each} {self._lack(each) or self._lack_of_room(each)}" for each in named]
        known = {each.node_id for each in self._candidates}
        lines += [f"{pin} {lack_of_stranger(pin)}" for pin in demand.pins if pin not in known]
        what = f"{demand.replicas} replicas" if demand.replicas > 1 else "one replica"
        each_of = f", each on {demand.ranks} nodes with the same labels and number of GPUs" if demand.ranks > 1 else ""
        room = f"{placed} have room" if placed else "none has room" if demand.replicas > 1 else "it has no room"
        room = room if self._allowed else "no node may be used"
        listed = "; ".join(lines) or "there is no node"
        return Problem(
            Code.DOES_NOT_FIT if self._allowed else Code.NO_NODE,
            f"{demand.uid} needs {what}{each_of}, and {room}: {listed}.",
            stage="plan",
            hint=_ROOM_HINT if self._allowed else _NODES_HINT,
        )

    def _lack_of_room(self, each: Candidate) -> str:
        count = self._counts[each.node_id]
        plan = self._plan(each.node_id, count + 1)
        if isinstance(plan, Problem):
            taken = f"has room for {count} of them, and for one more: " if count else "has no room: "
            return f"{taken}{plan.cause.rstrip('.')}"
        return "has room, and too few other nodes are like it"
