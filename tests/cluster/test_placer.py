"""The choice of nodes: free memory, pins, states, engines, and what a refusal says of each node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.deployments.doubles import HOST, SHAPE, launch_of
from xinference.cluster.members import Member, Members
from xinference.cluster.placer import Placer
from xinference.cluster.rows import NodeRow
from xinference.deployments.context import NodesView
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.fabric import Event
from xinference.fabric.memory import MemoryFabric
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.nodes.message_codec import encode
from xinference.nodes.messages import HostIs
from xinference.nodes.node import Node
from xinference.planning.occupancy import Occupancy
from xinference.units import GIB, MIB

FIRST, SECOND = "n000000000001", "n000000000002"


@dataclass
class FakeNode:
    """A node with a host, and perhaps the weights."""

    node_id: str
    resources: Host | Problem = HOST
    path: Path | None = None

    async def host(self) -> Host:
        if isinstance(self.resources, Problem):
            raise self.resources
        return self.resources

    async def find_weights(self, launch: ResolvedLaunch) -> Path | None:
        return self.path


class Place:
    """A supervisor with two workers, whose resources the test sets."""

    def __init__(self, *, runs_here: bool = False, now: float = 0.0, labels: Mapping[str, str] | None = None) -> None:
        self.now = now
        self.reserved: dict[str, int] = {}
        self.made = {name: FakeNode(name) for name in (LOCAL_NODE, FIRST, SECOND)}
        ignored: dict[str, Node] = {}
        self.members = Members(MemoryFabric(), 1, ignored, 30.0, lambda replica_id: True, clock=lambda: self.now)
        for node_id, name in ((FIRST, "box1"), (SECOND, "box2")):
            self.make_ready(self.members.add(NodeRow(node_id, name, dict(labels or {}), False, 0.0, None)))
        nodes = cast(dict[str, Node], self.made)
        self.engines: dict[str, Any] = {"llama.cpp": LlamaCpp()}
        self.placer = Placer(self.members, nodes, self.engines, self._occupancy, runs_here=runs_here)

    def make_ready(self, member: Member) -> None:
        member.known = member.known.with_link(is_up=True, now=self.now).with_status(self.now).with_replicas()

    def _occupancy(self, node_id: str, launch: LaunchPlan) -> Occupancy:
        return Occupancy(host_outstanding=self.reserved.get(node_id, 0))

    async def nodes_of(self, **request: Any) -> list[str]:
        """The nodes of the replicas."""
        plan = await self.plan_of(**request)
        return [plan.place_of(number).node_id for number in range(plan.request.replica)]

    async def plan_of(self, **request: Any) -> SizedPlan:
        launch = launch_of("one", **{name: value for name, value in request.items() if name != "worker_ip"})
        launch = launch.with_request(msgspec.structs.replace(launch.request, worker_ip=request.get("worker_ip")))
        view = await self.placer.view(launch)
        return self.placer.size(launch, Path("w"), SHAPE, (), view)


async def test_each_node_gets_a_replica_before_one_gets_two() -> None:
    assert sorted(await Place().nodes_of(replica=2)) == [FIRST, SECOND]
    assert sorted(await Place(runs_here=True).nodes_of(replica=3)) == [LOCAL_NODE, FIRST, SECOND]


async def test_the_node_with_the_most_free_memory_is_first_and_reserved_memory_is_not_free() -> None:
    place = Place()
    place.made[FIRST].resources = replace(HOST, memory_available=12 * GIB)
    assert await place.nodes_of() == [FIRST]
    place.reserved[FIRST] = 10 * GIB
    assert await place.nodes_of() == [SECOND]


async def test_an_earlier_view_gets_the_newest_reports_of_the_nodes_that_are_usable_now() -> None:
    place = Place()
    view = await place.placer.view(launch_of("one"))
    lessened = replace(HOST, memory_available=GIB)
    for node_id in (FIRST, SECOND):
        place.members.get(node_id).node.receive(Event(1, encode(HostIs(lessened))))
    place.members.set_drained(SECOND, drained=True)
    assert place.placer.now(view) == NodesView({FIRST: lessened}, view.with_weights)


async def test_of_equal_nodes_the_one_with_the_weights_is_first() -> None:
    place = Place()
    place.made[SECOND].path = Path("w")
    assert await place.nodes_of() == [SECOND]
    launch = launch_of("one")
    view = await place.placer.view(launch)
    assert place.placer.best(view, launch.request) == SECOND


@pytest.mark.parametrize("name", [SECOND, "box2"])
async def test_a_pin_is_a_pin(name: str) -> None:
    assert await Place().nodes_of(replica=2, worker_ip=name) == [SECOND, SECOND]


async def test_a_pin_to_no_node_is_refused_with_its_name() -> None:
    with pytest.raises(Problem, match=r"no node may be used: box9 is not a node of this cluster\.") as caught:
        await Place().nodes_of(worker_ip="box9")
    assert "cluster info" in str(caught.value.hint)


async def test_a_refused_pin_says_nothing_of_nodes_that_the_launch_does_not_name() -> None:
    place = Place()
    view = await place.placer.view(launch_of("one"))
    with pytest.raises(Problem, match=r"now: box9 is not a node of this cluster\."):
        place.placer.best(view, msgspec.structs.replace(launch_of("one").request, worker_ip="box9"))


async def test_only_workers_with_the_labels_are_used_and_a_refusal_names_the_label() -> None:
    place = Place(runs_here=True)
    place.members.get(FIRST).labels = {"gpu": "a100", "rack": "1"}
    place.members.get(SECOND).labels = {"gpu": "h100", "rack": "1"}
    place.made[FIRST].path = Path("w")
    assert await place.nodes_of(replica=2, labels={"gpu": "h100"}) == [SECOND, SECOND]
    launch = launch_of("one", labels={"gpu": "h100", "rack": "1"})
    view = await place.placer.view(launch)
    assert place.placer.allowed(launch.request) == [SECOND] == [place.placer.best(view, launch.request)]
    with pytest.raises(Problem) as caught:
        await place.nodes_of(labels={"rack": "1", "gpu": "b200"})
    lacks = f"{FIRST} (box1) has gpu=a100, and the launch asks for gpu=b200"
    assert caught.value.code == Code.NO_NODE and lacks in caught.value.cause
    assert f"{LOCAL_NODE} has no label rack, and the launch asks for rack=1" in caught.value.cause
    with pytest.raises(Problem) as caught:
        place.placer.best(view, launch_of("one", labels={"gpu": "b200"}).request)
    assert caught.value.code == Code.NO_NODE and "(box1) has gpu=a100, and the launch" in caught.value.cause


async def test_without_models_here_the_supervisor_takes_none() -> None:
    place = Place(runs_here=False)
    assert not place.placer.is_usable(LOCAL_NODE) and place.placer.is_usable(FIRST)
    with pytest.raises(Problem, match="local is the supervisor's machine, which runs no models"):
        await place.nodes_of(worker_ip=LOCAL_NODE)


async def test_a_node_that_is_not_ready_takes_nothing_and_the_refusal_says_why() -> None:
    place = Place()
    place.now = 10.0  # the last statuses are old
    place.make_ready(place.members.get(SECOND))
    place.members.get(SECOND).known = place.members.get(SECOND).known.with_status(10.0)
    assert not place.placer.is_usable(FIRST)
    assert await place.nodes_of() == [SECOND]
    place.members.set_drained(SECOND, drained=True)
    with pytest.raises(Problem, match="is DRAINING") as caught:
        await place.nodes_of()
    assert caught.value.code == Code.NO_NODE and f"{FIRST} (box1) is UNREACHABLE" in caught.value.cause


async def test_a_node_that_does_not_answer_is_left_out() -> None:
    place = Place()
    place.made[FIRST].resources = Problem(Code.NODE_GONE, "The link is down.")
    assert await place.nodes_of() == [SECOND]


async def test_a_node_that_is_removed_when_all_are_asked_is_left_out() -> None:
    place = Place()
    viewing = asyncio.create_task(place.placer.view(launch_of("one")))
    await asyncio.sleep(0)
    del place.made[FIRST]
    assert (await viewing).hosts.keys() == {SECOND}


async def test_no_node_has_room_and_the_refusal_names_each_with_what_it_lacks() -> None:
    place = Place()
    for node_id in (FIRST, SECOND):
        place.made[node_id].resources = replace(HOST, memory_available=10 * MIB)
    with pytest.raises(Problem) as caught:
        await place.nodes_of()
    assert caught.value.code == Code.DOES_NOT_FIT
    assert FIRST in caught.value.cause and SECOND in caught.value.cause


async def test_no_usable_node_is_no_node() -> None:
    place = Place()
    place.now = 100.0
    launch = launch_of("one")
    view = await place.placer.view(launch)
    with pytest.raises(Problem, match="box1") as caught:
        place.placer.best(view, launch.request)
    assert caught.value.code == Code.NO_NODE and "is LOST" in caught.value.cause


def test_a_model_on_demand_stays_on_the_supervisor_if_that_runs_models() -> None:
    on_demand, plain = launch_of("one", on_demand=True), launch_of("one")
    assert not Place(runs_here=True).placer.takes(on_demand) and Place(runs_here=True).placer.takes(plain)
    assert Place(runs_here=False).placer.takes(on_demand)


def test_a_model_on_demand_that_stays_there_asks_for_no_labels() -> None:
    labelled = launch_of("one", on_demand=True, labels={"gpu": "h100"}).request
    with pytest.raises(Problem, match="on demand can't ask for labels") as refused:
        Place(runs_here=True).placer.check(labelled)
    assert refused.value.status == 400
    Place(runs_here=False).placer.check(labelled)
    Place(runs_here=True).placer.check(launch_of("one", labels={"gpu": "h100"}).request)


class OnSeveral(LlamaCpp):
    """An engine that computes a replica on several nodes."""

    table = replace(LlamaCpp.table, ranks_refusal=None)


PRIVATE = {"fabric": "private"}


async def test_a_replica_on_two_nodes_takes_half_of_the_memory_of_each() -> None:
    place = Place(labels=PRIVATE)
    place.engines["llama.cpp"] = OnSeveral()
    whole, plan = await place.plan_of(), await place.plan_of(n_worker=2)
    (replica,) = plan.places
    assert sorted(replica.nodes) == [FIRST, SECOND]
    assert plan.sizing.weights_bytes == whole.sizing.weights_bytes // 2


async def test_an_engine_that_needs_one_machine_is_refused_with_its_reason() -> None:
    with pytest.raises(
        Problem, match=r"llama\.cpp can't compute a replica on 2 machines: .*neither keys nor encryption"
    ):
        await Place(labels=PRIVATE).plan_of(n_worker=2)


async def test_nodes_talk_in_clear_text_only_over_a_private_network_or_if_allowed() -> None:
    place = Place()
    place.engines["llama.cpp"] = OnSeveral()
    with pytest.raises(Problem, match="no label fabric=private") as raised:
        await place.plan_of(n_worker=2)
    assert raised.value.cause.count("without encryption") == 2
    assert len((await place.plan_of(n_worker=2, allow_plain_gang=True)).places[0].nodes) == 2


async def test_the_supervisors_own_machine_is_no_part_of_such_a_replica() -> None:
    place = Place(runs_here=True, labels=PRIVATE)
    place.engines["llama.cpp"] = OnSeveral()
    assert LOCAL_NODE not in (await place.plan_of(n_worker=2)).places[0].nodes
    with pytest.raises(Problem, match="local is the supervisor"):
        await place.plan_of(n_worker=3)
