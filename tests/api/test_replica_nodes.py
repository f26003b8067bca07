"""The machines of replicas in the entries of the API: by id, address and name, and unchanged on one machine."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.deployments.doubles import sized_plan
from xinference.api import replica_nodes, schemas
from xinference.api.launch_body import IGNORED_NODES
from xinference.api.routes import replicas
from xinference.control.controller import Controller
from xinference.deployments import views
from xinference.deployments.snapshot import DeploymentSnapshot, ReplicaView
from xinference.errors import Problem
from xinference.launch.place import Place

SUPERVISOR = "10.0.0.1:9997"


def controller(*members: tuple[str, str], instances: tuple[dict[str, Any], ...] = ()) -> Any:
    """A controller of a cluster with nodes of these ids and names; without any, of one machine."""
    nodes = [
        SimpleNamespace(node_id=node_id, name=name, front_door=f"10.0.0.{at}:9998")
        for at, (node_id, name) in enumerate(members, start=2)
    ]
    deployments = [SimpleNamespace(instance=instance) for instance in instances]
    cluster = SimpleNamespace(members=nodes) if nodes else None
    return SimpleNamespace(cluster=cluster, deployments=lambda: deployments)


def replicas_at(*places: Place) -> list[dict[str, Any]]:
    """The entries of replicas at these places."""
    plan = replace(sized_plan("one", replica=len(places)), places=places)
    found = tuple(ReplicaView(number) for number in range(len(places)))
    return views.replica_entries(DeploymentSnapshot("one", plan, created=1.0, replicas=found))


def test_an_entry_names_its_machine_and_several_machines_by_rank() -> None:
    here, there, both = replicas_at(Place(), Place("n1"), Place("n1", ranks=(Place("n2"),)))
    server = controller(("n1", "box1"), ("n2", "box2"))
    entries = [replica_nodes.with_machine(server, each, SUPERVISOR) for each in (here, there, both)]
    assert [each["worker_address"] for each in entries] == [SUPERVISOR, "10.0.0.2:9998", "10.0.0.2:9998"]
    assert [each["node"] for each in entries] == ["local", "n1", "n1"]
    assert [each.get("nodes") for each in entries] == [None, None, ["n1", "n2"]]
    assert [each["node_names"] for each in entries[1:]] == [["box1"], ["box1", "box2"]]
    for entry in entries:
        schemas.ReplicaAnswer.model_validate(entry)


def test_machines_of_the_same_name_are_told_apart_by_their_ids() -> None:
    (entry,) = replicas_at(Place("n1", ranks=(Place("n3"),)))
    server = controller(("n1", "box"), ("n2", "box"), ("n3", "other"))
    assert replica_nodes.with_machine(server, entry, SUPERVISOR)["node_names"] == ["n1", "other"]


def test_a_machine_that_was_removed_has_its_id() -> None:
    (entry,) = replicas_at(Place("n9"))
    found = replica_nodes.with_machine(controller(("n1", "box1")), entry, SUPERVISOR)
    assert (found["worker_address"], found["node_names"]) == ("n9", ["n9"])


@pytest.mark.parametrize(
    ("members", "address", "names"), [((), None, None), ((("n1", "box1"),), "10.0.0.2:9998", ["box1"])]
)
def test_an_instance_has_the_addresses_only_in_a_cluster(members: Any, address: str | None, names: Any) -> None:
    entries = replicas_at(Place("n1"))
    instance = {"model_uid": "one", "replicas": entries, "replica_statuses": entries}
    (found,) = replica_nodes.instances_with_machines(controller(*members, instances=(instance,)), SUPERVISOR)
    for entry in (*found["replicas"], *found["replica_statuses"]):
        assert (entry["worker_address"], entry.get("node_names")) == (address, names)
    assert instance["replicas"] is entries and "node_names" not in entries[0], "the deployment's own is not changed"


def test_one_machine_has_no_further_fields() -> None:
    (entry,) = replicas_at(Place())
    found = replica_nodes.with_machine(controller(), entry, SUPERVISOR)
    assert found == entry | {"worker_address": SUPERVISOR}


def test_the_node_of_a_further_replica_is_refused_in_a_cluster_and_a_warning_on_one_machine() -> None:
    body = replicas.ReplicaBody.model_validate({"replica_config": {"devices": [{"worker_ip": "box9"}]}})
    events: list[tuple[str, ...]] = []
    log = SimpleNamespace(add=lambda *event: events.append(event))
    replicas._check_nodes(body, cast(Controller, SimpleNamespace(is_cluster=False, event_log=log)), "m")
    assert events == [("m", "WARNING", "plan", IGNORED_NODES)]
    with pytest.raises(Problem, match="worker_ip can't choose the machine of a further replica"):
        replicas._check_nodes(body, cast(Controller, SimpleNamespace(is_cluster=True, event_log=log)), "m")
