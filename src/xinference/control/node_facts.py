"""Facts about the nodes of a cluster: the host that decides the engine, the size of a launch, the names of machines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.deployments.context import NodePlacer
from xinference.engines.base import Engine
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.nodes.node import Node


async def planning_host(placer: NodePlacer, nodes: Mapping[str, Node], request: LaunchRequest, default: Host) -> Host:
    """The host that decides whether GPUs are used: the one with the most free memory of those that may be used.

    `default` if no node answers: the launch is refused later, with the reason of each node.
    """
    allowed = placer.allowed(request)
    hosts = await asyncio.gather(*(nodes[node_id].host() for node_id in allowed), return_exceptions=True)
    found = [host for host in hosts if isinstance(host, Host)]
    return max(found, key=lambda host: host.free_memory, default=default)


async def size_on_nodes(
    launch: ResolvedLaunch, placer: NodePlacer, nodes: Mapping[str, Node], engine: Engine
) -> SizedPlan | None:
    """Size a launch on the nodes of a cluster; None: no usable node has its weights.

    Raises:
        Problem: as `NodePlacer.size`; the header cannot be read; 503 ``no_node``, 400 ``model_path_not_found``: no
            node has the path of the launch.
    """
    view = await placer.view(launch)
    if not view.with_weights:
        if isinstance(launch.origin, Path):  # no hub can be asked for its size
            placer.best(view, launch.request)
            raise _path_nowhere(launch.origin)
        return None
    problem: Problem | None = None
    for node_id, path in view.with_weights.items():
        try:
            header = await nodes[node_id].read_header(launch, path)
        except Problem as refusal:  # a path of the launch may exist on one node only
            problem = refusal
            continue
        engine.check_weights(launch, header.shape)
        engine.check_packing(launch, header.shape, view.hosts[node_id])
        return placer.size(launch, path, header.shape, header.notes, view)
    assert problem is not None
    raise problem


def node_names(replica: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """The names of all machines of a replica's entry, the first one first; `names` has them by id."""
    nodes = replica.get("nodes") or [replica["node"]]
    return [names.get(node_id, node_id) for node_id in nodes]


def _path_nowhere(path: Path) -> Problem:
    return Problem(
        Code.MODEL_PATH_NOT_FOUND,
        f"No node has the path {path}.",
        stage="plan",
        hint="Make it readable under the same path on the machines that may run the model.",
    )
