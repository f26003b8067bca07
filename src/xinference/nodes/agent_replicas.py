"""The replicas of an agent: started or adopted for the server, and reported until it has received their ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from xinference.errors import Problem
from xinference.nodes import messages
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import Node, ReplicaLike
from xinference.process.command import EngineCommand
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.table import Target
from xinference.task_set import TaskSet

LastAnswers = Callable[[str], Awaitable[None]]


async def no_answers(replica_id: str) -> None:
    """Wait for no answers: the server has done so, and has the only gateway."""


@dataclass(eq=False)
class _Kept:
    """A replica of this node."""

    replica: ReplicaLike
    serial: int = 0
    problem: Problem | None = None
    """Why it did not become ready."""
    ended: bool = False
    """Its exit and its problem are both known."""
    stopping: bool = False
    """It gets no more requests."""
    watch: asyncio.Task[None] | None = None


class KeptReplicas:
    """The replicas by their ids. An end stays until the server has acknowledged it."""

    def __init__(self, node: Node, send: Callable[[messages.EventBody], None], last_answers: LastAnswers) -> None:
        """`last_answers` waits for the last answers of a replica that is to be stopped."""
        self._last_answers = last_answers
        self._node = node
        self._send = send
        self._kept: dict[str, _Kept] = {}
        self._tasks = TaskSet()
        self.targets: dict[str, Target] = {}
        """The replicas that answer requests, for the front door."""

    def start(self, replica_id: str, command: EngineCommand) -> None:
        """Start a replica, unless it was started already: the answer to an earlier question was lost.

        Raises:
            Problem: the start is refused.
        """
        if replica_id not in self._kept:
            self._keep(replica_id, self._node.start(replica_id, command, lambda: self._changed(replica_id)))

    async def adopt(self, replica_id: str) -> messages.ReplicaReport | None:
        """The report of a replica that runs here, or that an earlier agent left running; None: it does not run.

        Raises:
            Problem: as `Node.adopt`.
        """
        if replica_id not in self._kept:
            replica = await self._node.adopt(replica_id)
            if replica is None:
                return None
            replica.report_to(lambda: self._changed(replica_id))
            self._keep(replica_id, replica)
        return self._report(self._kept[replica_id], whole=True)

    def stop(self, replica_id: str) -> None:
        """Stop a replica, which gets no more requests, after its last answers; its report follows."""
        if (kept := self._kept.get(replica_id)) is not None and not kept.ended:
            kept.stopping = True
            self.targets.pop(replica_id, None)
            self._tasks.start(self._stop(replica_id, kept))

    async def _stop(self, replica_id: str, kept: _Kept) -> None:
        await self._last_answers(replica_id)
        await kept.replica.stop()

    async def measure(self, replica_id: str) -> MemoryUse | None:
        """The memory of a replica's processes."""
        kept = self._kept.get(replica_id)
        return None if kept is None else await self._node.measure(kept.replica.snapshot)

    def forget(self, replica_ids: Iterable[str]) -> None:
        """Forget replicas whose end the server has seen."""
        for replica_id in replica_ids:
            if (kept := self._kept.get(replica_id)) is not None and kept.ended:
                del self._kept[replica_id]

    def reports(self) -> tuple[messages.ReplicaReport, ...]:
        """The reports of all replicas."""
        return tuple(self._report(kept) for kept in self._kept.values())

    async def stop_all(self) -> None:
        """Stop all replicas, which get no more requests, and wait until their ends are reported."""
        living = tuple(each for each in self._kept.values() if not each.ended)
        for kept in living:
            kept.stopping = True
        await asyncio.gather(*(each.replica.stop() for each in living))
        await asyncio.gather(*(each.watch for each in living if each.watch is not None))

    async def close(self) -> None:
        """Detach all replicas; their engines run on for the next agent."""
        kept = tuple(each for each in self._kept.values() if not each.ended)
        await asyncio.gather(*(each.replica.detach() for each in kept))
        await self._tasks.wait()
        await asyncio.gather(*(each.watch for each in kept if each.watch is not None), return_exceptions=True)

    def _keep(self, replica_id: str, replica: ReplicaLike) -> None:
        kept = self._kept[replica_id] = _Kept(replica)
        kept.watch = asyncio.create_task(self._watch(kept), name=f"report of {replica_id}")

    async def _watch(self, kept: _Kept) -> None:
        """Report the end of a replica, when its exit and its problem are known."""
        try:
            await kept.replica.wait_ready()
        except Problem as problem:
            kept.problem = problem
        try:
            await kept.replica.wait_exited()
        except Problem:
            return  # it was detached
        kept.ended = True
        self._send(self._report(kept))

    def _changed(self, replica_id: str) -> None:
        kept = self._kept.get(replica_id)
        # `_watch` reports the end, with the problem.
        if kept is not None and kept.replica.snapshot.state is not ReplicaState.EXITED:
            self._send(self._report(kept))

    def _report(self, kept: _Kept, *, whole: bool = False) -> messages.ReplicaReport:
        """The report of a replica; `whole`: with what the server that started it knows."""
        snapshot = kept.replica.snapshot
        self._note_target(snapshot, stopping=kept.stopping)
        kept.serial += 1
        is_ending = snapshot.state is ReplicaState.EXITED and not kept.ended
        return messages.ReplicaReport(
            snapshot.replica_id,
            kept.serial,
            ReplicaState.STOPPING if is_ending else snapshot.state,
            snapshot.port,
            snapshot.base_url,
            snapshot.log_path,
            snapshot.keeper_pid,
            snapshot.engine_pid,
            snapshot.started_at,
            None if is_ending else snapshot.exit,
            snapshot.fault,
            None if kept.problem is None else kept.problem.to_dict(),
            snapshot.api_key if whole else "",
            dict(snapshot.context) if whole else {},
        )

    def _note_target(self, snapshot: ReplicaSnapshot, *, stopping: bool) -> None:
        if snapshot.state is ReplicaState.READY and not stopping:
            self.targets[snapshot.replica_id] = Target(snapshot.replica_id, snapshot.base_url, snapshot.api_key)
        else:
            self.targets.pop(snapshot.replica_id, None)
