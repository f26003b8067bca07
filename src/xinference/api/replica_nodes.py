"""The fields about machines in the entries of replicas, for a server that may have a cluster."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.api.node_entries import worker_address
from xinference.control.controller import Controller
from xinference.control.linked_log import LinkedLog
from xinference.control.node_facts import node_names
from xinference.hosts import LOCAL_NODE
from xinference.process.node_log import EngineLog


def with_machine(controller: Controller, replica: Mapping[str, Any], address: str) -> dict[str, Any]:
    """A replica's entry with the address of its machine and, in a cluster, the names of all its machines.

    `address` is that of the supervisor.
    """
    entry = {**replica, "worker_address": worker_address(controller, replica["node"], address)}
    return entry if controller.cluster is None else entry | {"node_names": node_names(replica, names_of(controller))}


def instances_with_machines(controller: Controller, address: str) -> list[dict[str, Any]]:
    """The entries of all deployments. On one machine the addresses of replicas are null, as in older versions."""
    instances = [deployment.instance for deployment in controller.deployments()]
    if controller.cluster is None:
        return instances
    return [_instance(controller, instance, address) for instance in instances]


def names_of(controller: Controller) -> dict[str, str]:
    """Id of each node of a cluster -> its name, or its id if another node has the same name."""
    if controller.cluster is None:
        return {}
    names = {LOCAL_NODE: socket.gethostname()} | {each.node_id: each.name for each in controller.cluster.members}
    counts = Counter(names.values())
    return {node_id: name if name and counts[name] == 1 else node_id for node_id, name in names.items()}


def readable_logs(controller: Controller, logs: Mapping[str, EngineLog]) -> dict[str, Path | LinkedLog]:
    """The logs by the names of their replicas; those of other nodes are read over the links."""
    if all(isinstance(log, Path) for log in logs.values()):
        return {name: log for name, log in logs.items() if isinstance(log, Path)}
    names, nodes = names_of(controller), controller.planner.nodes
    return {
        name: log
        if isinstance(log, Path)
        else LinkedLog(log.node_id, log.path, names.get(log.node_id, log.node_id), nodes)
        for name, log in logs.items()
    }


def _instance(controller: Controller, instance: dict[str, Any], address: str) -> dict[str, Any]:
    entries = [with_machine(controller, replica, address) for replica in instance["replicas"]]
    return {**instance, "replicas": entries, "replica_statuses": entries}
