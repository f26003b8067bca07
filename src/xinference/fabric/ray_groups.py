"""The placement groups of the driver: the resources of our replicas, and those that launches request.

They belong to the driver's job: Ray removes them when the driver ends, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from xinference.fabric.ray_messages import Hold, Want, Wishes

log = logging.getLogger(__name__)
#: The label that Ray gives each node, with its id.
NODE_LABEL = "ray.io/node-id"
#: Maximum time in which Ray finds resources that it has.
READY_SECONDS = 10.0
#: Time after which a node is asked again for what it lacked.
RETRY_SECONDS = 15.0
#: Time in which a group that waits for the autoscaler is looked at, and the maximum number of groups of one launch.
WANT_SECONDS, MAX_GROUPS = 0.2, 32


@dataclass
class _Held:
    """What is reserved on one node."""

    gpus: dict[int, Any] = field(default_factory=dict)
    """GPU index -> its group."""
    rest: Any = None
    """The group of memory and CPUs."""
    rest_size: tuple[int, float] = (0, 0.0)
    retry_at: float = 0.0


@dataclass
class _Wanted:
    """What a launch waits for."""

    known: frozenset[str]
    """The nodes of Ray when the launch began to want."""
    groups: list[Any] = field(default_factory=list)


class RayGroups:
    """Makes the groups of the newest wishes, and removes the others.

    Args:
        changed: called after a change of `lacking`.
        nodes: the ids of the living nodes of Ray.
    """

    def __init__(self, changed: Callable[[], None], nodes: Callable[[], Collection[str]]) -> None:
        self._changed = changed
        self._nodes = nodes
        self._wishes = Wishes()
        self._is_new = asyncio.Event()
        self._held: dict[str, _Held] = {}
        self._wanted: dict[str, _Wanted] = {}
        self.lacking: dict[str, str] = {}

    def wish(self, wishes: Wishes) -> None:
        """Take the newest wishes."""
        self._wishes = wishes
        self._is_new.set()

    async def run(self) -> None:
        """Fulfil the wishes, until the task is cancelled."""
        while True:
            try:
                await self._fulfil(self._wishes)
            except RayError as error:
                log.warning("a reservation failed: %s", error)
            try:
                async with asyncio.timeout(1.0):
                    await self._is_new.wait()
            except TimeoutError:
                continue
            self._is_new.clear()

    async def _fulfil(self, wishes: Wishes) -> None:
        wants = {want.uid: want for want in wishes.wants}
        for uid in self._wanted.keys() - wants.keys():
            # Before the holds: a node that came for a launch is for its replicas.
            for group in self._wanted.pop(uid).groups:
                _remove(group)
        holds = {hold.ray_node: hold for hold in wishes.holds}
        for ray_node in self._held.keys() | holds.keys():
            await self._hold(holds.get(ray_node, Hold(ray_node)))
        for uid, want in wants.items():
            wanted = self._wanted.setdefault(uid, _Wanted(frozenset(self._nodes())))
            await self._want(want, wanted)

    async def _want(self, want: Want, wanted: _Wanted) -> None:
        """Let one more group wait, if the others have a node each, and the launch wants more.

        A group that waits is what the autoscaler sees. If it gets a node that was there, where the launch has no room,
        it stays there, so that the next one does not get it: Ray counts other things than a launch needs.
        """
        if wanted.groups and not await _is_ready(wanted.groups[-1], WANT_SECONDS):
            return
        came = sum(_node_of(group) not in wanted.known for group in wanted.groups)
        if came < want.nodes and len(wanted.groups) < MAX_GROUPS:
            wanted.groups.append(placement_group([_bundle(want.gpus, 0, want.cpus)]))

    async def _hold(self, hold: Hold) -> None:
        held = self._held.setdefault(hold.ray_node, _Held())
        for index in held.gpus.keys() - set(hold.gpus):
            _remove(held.gpus.pop(index))
        size = (hold.memory_bytes, hold.cpus)
        if held.rest is not None and held.rest_size != size:
            _remove(held.rest)
            held.rest = None
        lacking = []
        now = asyncio.get_running_loop().time()
        is_due = now >= held.retry_at or hold.ray_node not in self.lacking
        if is_due and size != (0, 0.0) and held.rest is None:
            held.rest, held.rest_size = await self._reserve(hold.ray_node, _bundle(0, *size)), size
            if held.rest is None:
                lacking.append(f"{hold.cpus:g} CPUs and {hold.memory_bytes} bytes of memory")
        if is_due and (missing := set(hold.gpus) - held.gpus.keys()):
            held.gpus |= await self._reserve_gpus(hold.ray_node, missing)
            if left := sorted(missing - held.gpus.keys()):
                lacking.append(f"the GPUs {', '.join(map(str, left))}")
        if is_due:
            held.retry_at = now + RETRY_SECONDS
            self._note_lacking(hold.ray_node, " and ".join(lacking))
        if not hold.gpus and size == (0, 0.0):
            del self._held[hold.ray_node]
            self._note_lacking(hold.ray_node, "")

    async def _reserve_gpus(self, ray_node: str, missing: set[int]) -> dict[int, Any]:
        """Groups of one GPU each. Ray chooses the GPU of a group, so those of others are given back at the end."""
        found: dict[int, Any] = {}
        others: list[Any] = []
        while missing - found.keys() and (group := await self._reserve(ray_node, {"GPU": 1.0})) is not None:
            index = await _gpu_of(group)
            if index in missing:
                found[index] = group
            else:
                others.append(group)
        for group in others:
            _remove(group)
        return found

    async def _reserve(self, ray_node: str, bundle: Mapping[str, float]) -> Any:
        """A group on this node; None: Ray has not enough there."""
        group = placement_group([dict(bundle)], bundle_label_selector=[{NODE_LABEL: ray_node}])
        if await _is_ready(group, READY_SECONDS):
            return group
        _remove(group)
        return None

    def _note_lacking(self, ray_node: str, text: str) -> None:
        if self.lacking.get(ray_node, "") != text:
            self.lacking.pop(ray_node, None)
            if text:
                self.lacking[ray_node] = text
            self._changed()


def _node_of(group: Any) -> str:
    """The node of a group that is ready."""
    return str(next(iter(placement_group_table(group)["bundles_to_node_id"].values()), ""))


async def _gpu_of(group: Any) -> int | None:
    """The index of the GPU of a group, as Ray's tasks in it see it; None: it has a name instead."""
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=False)
    task = ray.remote(_gpu_ids).options(num_cpus=0, num_gpus=1, max_retries=0, scheduling_strategy=strategy)
    found = await task.remote()
    return int(found[0]) if found and str(found[0]).isdigit() else None


def _gpu_ids() -> list[Any]:
    return list(ray.get_gpu_ids())


async def _is_ready(group: Any, seconds: float) -> bool:
    # `group.ready()` would run a task in the group, which takes a process on the node.
    return bool(await asyncio.to_thread(group.wait, seconds))


def _bundle(gpus: int, memory_bytes: int, cpus: float) -> dict[str, float]:
    wanted = {"GPU": float(gpus), "CPU": float(cpus), "memory": float(memory_bytes)}
    return {name: value for name, value in wanted.items() if value}


def _remove(group: Any) -> None:
    remove_placement_group(group)
