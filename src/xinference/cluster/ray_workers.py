"""The workers on the nodes of an existing Ray cluster: one process outside of Ray on each node."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import msgspec

from xinference.cluster.members import Members
from xinference.cluster.ray_plan import RAY, STARTED_BY, RayWorker, endpoint_for, gone, holds_of, is_chosen, is_due
from xinference.config import Settings
from xinference.fabric.ray_messages import RayLost, RayState, Want, Wishes, WorkerOrder, WorkerReport
from xinference.fabric.ray_session import RaySession
from xinference.hardware.machine_id import machine_id
from xinference.nodes.join_tokens import JoinToken, TokenRow
from xinference.nodes.membership import NodeState
from xinference.planning.eviction import Bytes
from xinference.task_set import TaskSet

log = logging.getLogger(__name__)
#: Interval at which the nodes of Ray are compared with the workers, in seconds.
TICK_SECONDS = 1.0
#: How long the token of a worker that is started is valid.
TOKEN_SECONDS = 600.0


class Owner(Protocol):
    """The cluster, as far as these workers need it."""

    members: Members
    supervisor_id: str
    port: int
    """To which workers connect."""

    def create_token(self, seconds: float, uses: int | None) -> tuple[JoinToken, TokenRow]: ...

    def delete_token(self, token_id: str) -> None: ...

    @property
    def removed_nodes(self) -> Collection[str]:
        """The nodes that were removed for ever."""
        ...

    @property
    def given_back(self) -> Collection[str]:
        """Those of them that were removed because their machine has left Ray."""
        ...

    async def give_back(self, node_id: str) -> None:
        """End the worker of a node whose machine has left Ray, and remove the node."""
        ...


class RayWorkers:
    """Keeps a worker on each node of Ray that is chosen, and our reservations there."""

    def __init__(self, settings: Settings, owner: Owner, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._owner = owner
        self._clock = clock
        self._changed = asyncio.Event()
        self.session = RaySession(settings.ray_address, settings.log_dir / "ray.log", self._changed.set)
        self._names = [name for name in map(str.strip, settings.ray_nodes.split(",")) if name]
        self.workers: dict[str, RayWorker] = {}
        """By the id of their node in Ray; only of living nodes."""
        self.wants: Callable[[], tuple[Want, ...]] = tuple
        """What launches without room want."""
        self.reserved: Callable[[str], Sequence[Bytes]] = lambda node_id: ()
        """Bytes of each device of a node, for each deployment there."""
        self._gone_since: dict[str, float] = {}
        self._tasks = TaskSet()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to Ray, and keep the workers from now on."""
        self._settings.log_dir.mkdir(parents=True, exist_ok=True)
        self.session.start()
        self._running = asyncio.create_task(self._run(), name="workers on Ray")

    async def close(self) -> None:
        """Leave Ray. The workers run on."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._tasks.end()
        await self.session.close()

    @property
    def state(self) -> RayState | None:
        """What Ray says; None: it is not reached."""
        return self.session.state

    @property
    def lost(self) -> RayLost | None:
        """Why Ray is not reached."""
        return self.session.lost

    def node_ids(self) -> list[str]:
        """The nodes of our cluster that were started through Ray."""
        labelled = [each.node_id for each in self._owner.members if each.labels.get(STARTED_BY) == RAY]
        return sorted({*labelled, *(worker.node_id for worker in self.workers.values() if worker.node_id)})

    # -- the task ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                self._tick()
            except Exception:  # a defect here must not end what serves
                log.exception("the workers on Ray")
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    def _tick(self) -> None:
        state = self.session.state
        if state is None:
            for worker in self.workers.values():  # the next session asks each node again
                worker.asked_at = None
            return
        chosen = {node.ray_node: node for node in state.nodes if is_chosen(node, self._names)}
        for ray_node in self.workers.keys() - chosen.keys():
            del self.workers[ray_node]
        for ray_node, node in chosen.items():
            worker = self.workers.setdefault(ray_node, RayWorker(node))
            worker.entry = node
            if is_due(worker, self._is_linked(worker.node_id), self._clock()):
                worker.is_asked = True
                self._tasks.start(self._ask(worker, state))
        self.session.wish(Wishes(holds_of(self.workers.values(), self.reserved), self.wants()))
        self._give_back()

    async def _ask(self, worker: RayWorker, state: RayState) -> None:
        """Find the worker of a node, or start it."""
        before = worker.problem, worker.node_id
        try:
            worker.problem = await self._find_or_start(worker, state)
        finally:
            worker.is_asked, worker.asked_at = False, self._clock()
            self._changed.set()
        name = f"{worker.entry.ray_node[:12]} ({worker.entry.name})"
        if worker.problem and before[0] != worker.problem:
            log.warning("Ray node %s has no worker: %s", name, worker.problem)
        elif worker.node_id and before[1] != worker.node_id:
            log.info("Ray node %s is node %s", name, worker.node_id)

    async def _find_or_start(self, worker: RayWorker, state: RayState) -> str:
        """Take what Ray reports of the worker; returns the reason why none runs, or nothing."""
        settings, ray_node = self._settings, worker.entry.ray_node
        endpoint = endpoint_for(worker.entry, state, settings.host, settings.port, settings.ray_endpoint)
        if endpoint is None:
            return f"the supervisor listens on {settings.host} only: start it with --host 0.0.0.0"
        order = WorkerOrder(
            self._owner.supervisor_id,
            endpoint,
            self._owner.port,
            settings.worker_port,
            settings.ray_home,
            {**worker.entry.labels, STARTED_BY: RAY},
            not_on="" if settings.no_models else machine_id(),
        )
        report = await self.session.find_or_start(ray_node, order)
        if not report.refusal and not report.node_id:
            if self._is_removed(report.was):
                return _removed(report)
            is_known = any(each.node_id == report.was for each in self._owner.members)
            token, row = self._owner.create_token(TOKEN_SECONDS, 1)
            try:
                anew = bool(report.was) and not is_known
                order = msgspec.structs.replace(order, token=token.text, joins_anew=anew)
                report = await self.session.find_or_start(ray_node, order)
            finally:
                self._owner.delete_token(row.token_id)
        if self._is_removed(report.node_id):  # it ends now
            return _removed(report)
        worker.node_id, worker.pid, worker.home = report.node_id, report.pid, report.home or worker.home
        return report.refusal

    def _is_removed(self, node_id: str) -> bool:
        """Whether an operator has removed a node."""
        return node_id in self._owner.removed_nodes and node_id not in self._owner.given_back

    def _is_linked(self, node_id: str) -> bool:
        states = (self._owner.members.state_of(each) for each in self._owner.members if each.node_id == node_id)
        return any(state not in (NodeState.UNREACHABLE, NodeState.LOST) for state in states)

    def _give_back(self) -> None:
        """End the workers without replicas whose machines have left Ray."""
        ours = [each.node_id for each in self._owner.members if each.labels.get(STARTED_BY) == RAY]
        self._gone_since, over = gone(ours, self.workers.values(), self._gone_since, self._clock())
        for node_id in over:
            if not any(self.reserved(node_id)):
                del self._gone_since[node_id]
                log.info("node %s is given back: its machine is not in Ray any more", node_id)
                self._tasks.start(self._owner.give_back(node_id))


def _removed(report: WorkerReport) -> str:
    node_id, folder = report.was or report.node_id, f"{report.home}/cluster"
    return f"its node {node_id} was removed from the cluster: delete the folder {folder} there to use it again"
