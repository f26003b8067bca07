"""Launches that fit on no node: the resources that they request from Ray's autoscaler, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from xinference.cluster.members import Members
from xinference.fabric.ray_messages import Want
from xinference.launch.request import LaunchRequest

#: Interval at which a launch looks whether a node has come, in seconds.
LOOK_SECONDS = 1.0
#: How long a want lasts after the last question of its launch, in seconds.
ASK_SECONDS = 30.0


@dataclass
class _Asked:
    """The want of one launch. Times are those of the clock."""

    want: Want
    until: float
    usable: frozenset[str]
    """The nodes that took replicas when the launch asked."""
    uid: str = ""
    """The deployment, once the launch has room."""


class RayRoom:
    """Implements `RoomRequests`.

    Args:
        seconds: that a launch waits for a node.
        reserved: the uids of the deployments with reserved memory.
    """

    def __init__(
        self,
        members: Members,
        seconds: float,
        reserved: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._members = members
        self.seconds = seconds
        self._reserved = reserved
        self._clock = clock
        self._asked: dict[str, _Asked] = {}

    def ask(self, name: str, request: LaunchRequest) -> None:
        """See `RoomRequests.ask`. If a node has come since the last question, it was not enough: one more is wanted."""
        usable, before = self._usable(), self._asked.get(name)
        nodes = 1
        if before is not None:
            nodes = min(before.want.nodes + bool(usable - before.usable), request.replica * request.n_worker)
        self._asked[name] = _Asked(want_of(name, request, nodes, has_gpus=self._has_gpus()), self._end(), usable)

    def keep(self, name: str, uid: str) -> None:
        """See `RoomRequests.keep`."""
        if (asked := self._asked.get(name)) is not None:
            asked.uid, asked.until = uid, self._clock() + self.seconds

    def end(self, name: str) -> None:
        """See `RoomRequests.end`."""
        self._asked.pop(name, None)

    async def wait_for_node(self, name: str, seconds: float) -> bool:
        """See `RoomRequests.wait_for_node`."""
        deadline = self._clock() + seconds
        while (asked := self._asked.get(name)) is not None and self._clock() < deadline:
            asked.until = self._end()
            if self._usable() - asked.usable:
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return False

    def wants(self) -> tuple[Want, ...]:
        """The wants of now. One ends when its deployment has its memory, or when nobody has asked for long."""
        now, reserved = self._clock(), self._reserved()
        over = [name for name, asked in self._asked.items() if now >= asked.until or asked.uid in reserved]
        for name in over:
            del self._asked[name]
        return tuple(asked.want for asked in self._asked.values())

    def _end(self) -> float:
        return self._clock() + ASK_SECONDS

    def _usable(self) -> frozenset[str]:
        return frozenset(each.node_id for each in self._members if self._members.state_of(each).takes_replicas)

    def _has_gpus(self) -> bool:
        hosts = (each.node.last_host for each in self._members)
        return any(host is not None and host.gpus for host in hosts)


def want_of(name: str, request: LaunchRequest, nodes: int, *, has_gpus: bool) -> Want:
    """What a launch wants of each node. ``auto`` means a GPU if a node of the cluster has one."""
    if request.gpu_idx:
        gpus = len(request.gpu_idx)
    elif isinstance(request.n_gpu, int):
        gpus = request.n_gpu
    else:
        gpus = int(request.n_gpu == "auto" and has_gpus)
    return Want(name, gpus, 1.0, nodes)
