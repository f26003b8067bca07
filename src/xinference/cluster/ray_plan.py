"""Decides which nodes of Ray get a worker, which resources are reserved there, and which nodes are gone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from xinference.fabric.ray_messages import Hold, RayNodeEntry, RayState
from xinference.hosts import host_in_url, is_loopback
from xinference.planning.eviction import HOST, Bytes

#: The label of the workers that were started through Ray, and its value.
STARTED_BY, RAY = "started-by", "ray"
#: Interval at which a node is tried again that has refused a worker, and one whose worker is not linked.
REFUSED_SECONDS, SILENT_SECONDS = 30.0, 15.0
#: A worker without replicas is ended when its node has not been in a Ray that answers for so long.
GONE_SECONDS = 60.0
#: Addresses that mean all of this machine.
_ALL = ("0.0.0.0", "::")  # noqa: S104 -- it is compared, not bound


@dataclass
class RayWorker:
    """What is known of the worker of one node of Ray. Times are those of one monotonic clock."""

    entry: RayNodeEntry
    node_id: str = ""
    """In our cluster; empty: none runs."""
    pid: int = 0
    home: str = ""
    problem: str = ""
    """Why no worker runs there."""
    asked_at: float | None = None
    is_asked: bool = False
    """Whether Ray is being asked now."""


def is_chosen(node: RayNodeEntry, names: Sequence[str]) -> bool:
    """Whether a node gets a worker: one of these names it, or none is given and it offers Ray CPUs or GPUs.

    A name is an id, a host name, an address, or a label as ``NAME=VALUE``.
    """
    if not names:
        return node.resources.get("CPU", 0) > 0 or node.resources.get("GPU", 0) > 0
    labels = {f"{name}={value}" for name, value in node.labels.items()}
    return any(name in (node.ray_node, node.name, node.address) or name in labels for name in names)


def is_due(worker: RayWorker, is_linked: bool, now: float) -> bool:
    """Whether Ray is to be asked for the worker of a node now."""
    if worker.is_asked:
        return False
    if worker.asked_at is None:
        return True
    pause = REFUSED_SECONDS if worker.problem else SILENT_SECONDS
    return not is_linked and now - worker.asked_at >= pause


def endpoint_for(node: RayNodeEntry, state: RayState, host: str, port: int, given: str) -> str | None:
    """URL of the server for the worker of a node; None: the server listens on loopback only, and the node is elsewhere.

    `host` and `port` are those on which the server listens, `given` is the setting.
    """
    if given:
        return given
    if is_loopback(host):
        return (
            f"http://{host_in_url(host)}:{port}" if node.address == state.address or is_loopback(node.address) else None
        )
    return f"http://{host_in_url(state.address if host in _ALL else host)}:{port}"


def holds_of(workers: Iterable[RayWorker], reserved: Callable[[str], Sequence[Bytes]]) -> tuple[Hold, ...]:
    """What our replicas use of each node, as far as Ray counts it there.

    `reserved` gives the bytes of each device of a node, for each deployment there.
    """
    holds = []
    for worker in workers:
        uses = [use for use in reserved(worker.node_id) if use] if worker.node_id else []
        if uses:
            holds.append(_hold(worker.entry, uses))
    return tuple(holds)


def _hold(node: RayNodeEntry, uses: Sequence[Bytes]) -> Hold:
    count = int(node.resources.get("GPU", 0))
    gpus = sorted({int(device) for use in uses for device in use if device != HOST and int(device) < count})
    memory = min(sum(use.get(HOST, 0) for use in uses), int(node.resources.get("memory", 0)))
    return Hold(node.ray_node, tuple(gpus), memory, min(float(len(uses)), node.resources.get("CPU", 0.0)))


def gone(
    ours: Collection[str], workers: Iterable[RayWorker], since: Mapping[str, float], now: float
) -> tuple[dict[str, float], list[str]]:
    """The nodes of ours that no living node of Ray has, with the time since when, and those that are over.

    `ours` are the ids of the nodes that were started through Ray, `since` is the earlier result.
    """
    listed = tuple(workers)
    here = {worker.node_id for worker in listed}
    if any(worker.asked_at is None or worker.is_asked for worker in listed):
        return dict(since), []  # the worker of a node is not known yet
    missing = {node_id: since.get(node_id, now) for node_id in ours if node_id not in here}
    return missing, [node_id for node_id, first in missing.items() if now - first >= GONE_SECONDS]
