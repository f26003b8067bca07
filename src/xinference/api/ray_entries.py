"""The entry of the Ray cluster on whose nodes the supervisor starts workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xinference.cluster.members import Members
    from xinference.cluster.ray_plan import RayWorker
    from xinference.cluster.ray_workers import RayWorkers


def ray_entry(address: str, ray: RayWorkers, members: Members) -> dict[str, Any]:
    """What is known of Ray and of the workers on its nodes."""
    state, lost = ray.state, ray.lost
    problem = None if lost is None else {"code": lost.code, "message": lost.cause, "hint": lost.hint or None}
    lacking = {} if state is None else state.lacking
    states = {each.node_id: members.state_of(each).value for each in members}
    workers = sorted(ray.workers.values(), key=lambda each: (each.entry.name, each.entry.ray_node))
    return {
        "address": address,
        "is_reached": state is not None,
        "version": None if state is None else state.version,
        "problem": problem,
        "nodes": [_node_entry(each, states, lacking.get(each.entry.ray_node, "")) for each in workers],
        "wanted": sorted(want.uid for want in ray.wants()),
    }


def _node_entry(worker: RayWorker, states: dict[str, str], lacking: str) -> dict[str, Any]:
    entry = worker.entry
    return {
        "ray_node": entry.ray_node,
        "name": entry.name,
        "address": entry.address,
        "resources": entry.resources,
        "node_id": worker.node_id or None,
        "state": states.get(worker.node_id, "FAILED" if worker.problem else "STARTING"),
        "problem": worker.problem or (f"not reserved in Ray: {lacking}" if lacking else None),
    }
