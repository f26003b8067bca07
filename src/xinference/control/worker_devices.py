"""The machines of workers with the owners of their memory, from their last reports."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from xinference.control.devices import Owner, RunningReplica, running_replicas, view
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.launch.plan import Sizing
from xinference.nodes.memory_use import MemoryUse

if TYPE_CHECKING:
    from xinference.cluster.members import Member, Members

#: Maximum time for the measurements of a worker, in seconds; one that does not answer has none.
MEASURE_SECONDS = 2.0


async def read_workers(
    members: Members, deployments: Iterable[Deployment | BrokenDeployment], now: float
) -> list[dict[str, Any]]:
    """The entries of all workers for ``GET /v1/devices``. A worker whose link is down has no figures."""
    running = list(running_replicas(deployments))
    return list(await asyncio.gather(*(_read(members, member, running, now) for member in members)))


async def _read(members: Members, member: Member, running: list[RunningReplica], now: float) -> dict[str, Any]:
    names = {"node": member.node_id, "name": member.name, "state": members.state_of(member).value}
    host = member.node.last_host
    if host is None:
        return {**names, "time": now, "host": None, "gpus": [], "no_gpu_reason": None, "disks": []}
    found = [(owner, each) for each in running for owner in _owners(each, member.node_id)]
    used = await _measure(member, [each for _, each in found])
    return view(host, [owner for owner, _ in found], used, [], now, node=member.node_id) | names


def _owners(running: RunningReplica, node_id: str) -> list[Owner]:
    """The parts of a replica on a node: none, or one; its bytes are those of one node."""
    sizing, place = None, None
    if running.sized is not None:
        sizing, place = running.sized.sizing, running.sized.place_of(running.number)
    if place is None:
        return [_owner(running, None, ())] if running.process.node_id == node_id else []
    return [_owner(running, sizing, each.devices) for each in (place, *place.ranks) if each.node_id == node_id]


def _owner(running: RunningReplica, sizing: Sizing | None, devices: tuple[int, ...]) -> Owner:
    return Owner(running.uid, running.number, sizing, devices, None, running.process.replica_id)


async def _measure(member: Member, running: list[RunningReplica]) -> list[MemoryUse | None]:
    """The memory of the replicas whose first process is on this node."""
    asked = [
        member.node.measure(each.process) if each.process.node_id == member.node_id else _nothing() for each in running
    ]
    try:
        return list(await asyncio.wait_for(asyncio.gather(*asked), MEASURE_SECONDS))
    except TimeoutError:
        return [None] * len(running)


async def _nothing() -> None:
    return None
