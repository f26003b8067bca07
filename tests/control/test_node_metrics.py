"""The metrics of nodes; one machine has none. A replica elsewhere is not measured by a process id of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.control.test_server_metrics import samples
from tests.deployments.doubles import HOST, sized_plan
from xinference.control import node_metrics
from xinference.control.controller import Controller
from xinference.control.devices import owners
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import DeploymentSnapshot, ReplicaView
from xinference.hardware.devices import Gpu
from xinference.launch.place import Place
from xinference.nodes.membership import NodeState
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState

GPU = Gpu(0, "Test GPU", 80, 20, uuid="GPU-1")


def deployment(*places: Place) -> Any:
    """A model whose replicas have a process with id 7 at these places."""
    plan = replace(sized_plan("one", replica=len(places)), places=places)
    found = tuple(
        ReplicaView(
            number,
            ReplicaSnapshot(
                f"r{number}", ReplicaState.READY, 1, "", "", {}, Path("l"), engine_pid=7, node_id=place.node_id
            ),
        )
        for number, place in enumerate(places)
    )
    snapshot = DeploymentSnapshot("one", plan, created=1.0, replicas=found)
    return cast(Deployment, SimpleNamespace(uid="one", snapshot=snapshot))


class Nodes(list[Any]):
    """The members of a cluster, each with its state."""

    def state_of(self, member: Any) -> NodeState:
        return cast(NodeState, member.state)


def cluster(*deployments: Any) -> Any:
    """A cluster with a linked node, and one that is not."""
    linked = SimpleNamespace(last_host=replace(HOST, gpus=(GPU,)))
    members = Nodes(
        [
            SimpleNamespace(node_id="n1", name="box1", state=NodeState.READY, node=linked),
            SimpleNamespace(
                node_id="n2", name="box2", state=NodeState.UNREACHABLE, node=SimpleNamespace(last_host=None)
            ),
        ]
    )
    return SimpleNamespace(cluster=SimpleNamespace(members=members), deployments=lambda: deployments)


def test_each_node_has_its_state_its_memory_and_its_replicas() -> None:
    broken = cast(Any, object.__new__(BrokenDeployment))
    places = (Place(), Place("n1"), Place("n1", ranks=(Place("n2"),)))
    metrics = list(node_metrics.collect(cluster(deployment(*places), broken)))
    assert samples(metrics, "xinference_node_state") == {("n1", "box1", "READY"): 1, ("n2", "box2", "UNREACHABLE"): 1}
    assert samples(metrics, "xinference_node_memory_bytes") == {
        ("n1", "host", "total"): HOST.memory_total,
        ("n1", "host", "free"): HOST.memory_available,
        ("n1", "GPU-1", "total"): 80,
        ("n1", "GPU-1", "free"): 20,
    }
    on = [("r0", "local"), ("r1", "n1"), ("r2", "n1"), ("r2", "n2")]
    assert samples(metrics, "xinference_replica_info") == {("one", *each): 1 for each in on}


def test_one_machine_has_no_metrics_of_nodes(controller: Controller) -> None:
    assert list(node_metrics.collect(controller)) == []


def test_only_processes_of_this_machine_are_measured() -> None:
    assert [owner.pid for owner in owners([deployment(Place(), Place("n1"))])] == [7, None]
