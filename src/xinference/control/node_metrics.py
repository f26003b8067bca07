"""The nodes of a cluster as metrics for Prometheus: their states, their memory, and the replicas on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric

from xinference.control.controller import Controller
from xinference.control.devices import running_replicas
from xinference.control.machine_metrics import HOST_NAME
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.launch.place import Place

if TYPE_CHECKING:
    from xinference.cluster.members import Member, Members


def collect(controller: Controller) -> Iterator[Metric]:
    """All metrics of nodes; a server on one machine has none. No node is asked."""
    if controller.cluster is None:
        return
    members = controller.cluster.members
    yield _states(members)
    yield _memory(members)
    yield _replicas(controller.deployments())


def _states(members: Members) -> Metric:
    family = GaugeMetricFamily(
        "xinference_node_state", "1 for the state of each node", labels=("node", "name", "state")
    )
    for member in members:
        family.add_metric((member.node_id, member.name, members.state_of(member).value), 1)
    return family


def _memory(members: Iterable[Member]) -> Metric:
    family = GaugeMetricFamily(
        "xinference_node_memory_bytes",
        "Memory of the host and of each GPU of a node that is linked: total and free",
        labels=("node", "device", "kind"),
    )
    for member in members:
        host = member.node.last_host
        if host is None:
            continue
        family.add_metric((member.node_id, HOST_NAME, "total"), host.memory_total)
        family.add_metric((member.node_id, HOST_NAME, "free"), host.memory_available)
        for gpu in host.gpus:
            family.add_metric((member.node_id, gpu.uuid, "total"), gpu.memory_total)
            family.add_metric((member.node_id, gpu.uuid, "free"), gpu.memory_free)
    return family


def _replicas(deployments: Iterable[Deployment | BrokenDeployment]) -> Metric:
    family = GaugeMetricFamily(
        "xinference_replica_info", "1 for each node of each replica", labels=("model", "replica", "node")
    )
    for uid, number, process, sized in running_replicas(deployments):
        place = sized.place_of(number) if sized else Place()
        for node in dict.fromkeys((process.node_id, *(rank.node_id for rank in place.ranks))):
            family.add_metric((uid, process.replica_id, node), 1)
    return family
