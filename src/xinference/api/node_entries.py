"""The entries of a cluster's nodes and tokens in the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xinference.control.controller import Controller
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.nodes.node import Node
from xinference.units import MIB

if TYPE_CHECKING:
    from xinference.cluster.members import Member, Members
    from xinference.nodes.join_tokens import TokenRow


async def node_entry(controller: Controller, members: Members, member: Member) -> dict[str, Any]:
    """The entry of a node that has joined. The resources of a node that is out of reach are null."""
    left = members.seconds_left(member)
    host = member.node.last_host
    return {
        "node_id": member.node_id,
        "name": member.name,
        "address": member.front_door or None,
        "state": members.state_of(member).value,
        "labels": dict(member.labels),
        "version": member.version or None,
        "serves": member.serves or None,
        "lost_in": None if left is None else round(left, 1),
        **host_fields(host),
        "replicas": replicas_on(controller, member.node_id),
    }


async def own_entry(controller: Controller, name: str, address: str, version: str) -> dict[str, Any]:
    """The entry of the supervisor's own machine, if models run on it."""
    node_id = controller.node.node_id
    return {
        "node_id": node_id,
        "name": name,
        "address": address,
        "state": "READY",
        "labels": {},
        "version": version,
        "serves": address,
        "lost_in": None,
        **host_fields(await host_of(controller.node)),
        "replicas": replicas_on(controller, node_id),
    }


async def host_of(node: Node) -> Host | None:
    """The resources of a node; None: it does not answer."""
    try:
        return await node.host()
    except Problem:
        return None


def host_fields(host: Host | None) -> dict[str, Any]:
    """The resources of a machine."""
    if host is None:
        return {"cpu_count": None, "memory_total": None, "memory_available": None, "gpus": []}
    gpus = [
        {"index": gpu.index, "name": gpu.name, "memory_total": gpu.memory_total, "memory_free": gpu.memory_free}
        for gpu in host.gpus
    ]
    return {
        "cpu_count": host.physical_cores,
        "memory_total": host.memory_total,
        "memory_available": host.memory_available,
        "gpus": gpus,
    }


def replicas_on(controller: Controller, node_id: str) -> list[str]:
    """The names of the replicas with a process on a node."""
    entries = (entry for deployment in controller.deployments() for entry in deployment.replicas)
    return sorted(entry["replica_model_uid"] for entry in entries if entry["replica_uid"] and entry["node"] == node_id)


def worker_address(controller: Controller, node_id: str, address: str) -> str:
    """The address of a replica's machine; `address` is that of the supervisor."""
    if controller.cluster is None or node_id == LOCAL_NODE:
        return address
    return next((each.front_door for each in controller.cluster.members if each.node_id == node_id), "") or node_id


def models_by_worker(controller: Controller, address: str) -> list[dict[str, Any]]:
    """The models of each machine in the form of older versions; `address` is that of the supervisor."""
    members = () if controller.cluster is None else controller.cluster.members
    addresses = {LOCAL_NODE: address} | {each.node_id: each.front_door or each.node_id for each in members}
    models: dict[str, dict[str, Any]] = {node_id: {} for node_id in addresses}
    for deployment in controller.deployments():
        nodes = {entry["node"] for entry in deployment.replicas} or {LOCAL_NODE}
        for node_id in nodes & addresses.keys():
            models[node_id][deployment.uid] = deployment.description
    return [{"work-ip": addresses[node_id], "models": each} for node_id, each in models.items()]


def worker_facts(controller: Controller, *, detailed: bool) -> list[dict[str, Any]]:
    """The resources of each worker in the form of older versions. Those of one that is out of reach are 0."""
    members = () if controller.cluster is None else controller.cluster.members
    return [
        {"node_type": "Worker", "ip_address": each.front_door.rpartition(":")[0] or each.name}
        | _facts(each.node.last_host, detailed)
        for each in members
    ]


def _facts(host: Host | None, detailed: bool) -> dict[str, Any]:
    gpus = () if host is None else host.gpus
    facts: dict[str, Any] = {
        "gpu_count": len(gpus),
        "gpu_vram_total": f"{sum(gpu.memory_total for gpu in gpus) // MIB}MiB",
    }
    if not detailed:
        return facts
    total, free = (0, 0) if host is None else (host.memory_total, host.memory_available)
    return facts | {
        "cpu_count": 0 if host is None else host.physical_cores,
        "mem_used": total - free,
        "mem_available": free,
        "mem_total": total,
        "gpu_vram_available": f"{sum(gpu.memory_free for gpu in gpus) // MIB}MiB",
    }


def token_entry(row: TokenRow) -> dict[str, Any]:
    """A join token without its secret."""
    return {"token_id": row.token_id, "expires": row.expires, "uses_left": row.uses_left, "revoked": row.revoked}
