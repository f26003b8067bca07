"""The machines of workers: their resources, and the replicas that own them."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

from tests.control.test_node_metrics import deployment
from tests.deployments.doubles import HOST
from xinference.cluster.members import Members
from xinference.control.worker_devices import read_workers
from xinference.hardware.devices import Gpu, Host
from xinference.launch.place import Place
from xinference.nodes.membership import NodeState
from xinference.nodes.memory_use import MemoryUse

GPU = Gpu(1, "H200", 100, 40, uuid="GPU-1")


class Node:
    """A worker's node, which measures each replica as 7 bytes."""

    def __init__(self, host: Host | None) -> None:
        self.last_host = host
        self.measured: list[str] = []

    async def measure(self, replica: Any) -> MemoryUse:
        self.measured.append(replica.replica_id)
        return MemoryUse(7, None)


class Site:
    """Workers by their ids, with what they have reported."""

    def __init__(self, **hosts: Host | None) -> None:
        self.members = [
            SimpleNamespace(node_id=node_id, name=f"box {node_id}", node=Node(host)) for node_id, host in hosts.items()
        ]

    def __iter__(self) -> Any:
        return iter(self.members)

    def state_of(self, member: Any) -> NodeState:
        return NodeState.UNREACHABLE if member.node.last_host is None else NodeState.READY


async def test_each_worker_has_the_replicas_on_it_and_a_rank_is_not_measured() -> None:
    site = Site(n1=dataclasses.replace(HOST, gpus=(GPU,)), n2=HOST)
    places = (Place(), Place("n1"), Place("n1", ranks=(Place("n2"),)))
    first, second = await read_workers(cast(Members, site), [deployment(*places)], 5.0)
    assert (first["node"], first["name"], first["state"], first["time"]) == ("n1", "box n1", "READY", 5.0)
    assert (first["host"]["total"], first["gpus"][0]["free"]) == (HOST.memory_total, 40)
    owners = [
        [(each["node"], each["replica"], each["measured"]) for each in machine["host"]["owners"]]
        for machine in (first, second)
    ]
    assert owners == [[("n1", 1, 7), ("n1", 2, 7)], [("n2", 2, None)]]
    assert site.members[0].node.measured == ["r1", "r2"] and site.members[1].node.measured == []


async def test_a_worker_whose_link_is_down_has_no_figures() -> None:
    (machine,) = await read_workers(cast(Members, Site(n1=None)), [], 5.0)
    assert (machine["state"], machine["host"], machine["gpus"]) == ("UNREACHABLE", None, [])
