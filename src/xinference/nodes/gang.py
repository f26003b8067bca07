"""A replica that several nodes compute together: one engine process for each rank, which start and end as one."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from xinference.engines.replica_placement import Rank
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.node import Node, ReplicaLike
from xinference.process.command import Exit
from xinference.process.replica_results import ReplicaResults
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState


def rank_id(replica_id: str, number: int) -> str:
    """The id of one rank's process; that of rank 0 is the replica's."""
    return f"{replica_id}-{number}" if number else replica_id


def replica_of(process_id: str) -> str:
    """The id of the replica of which a process, by its id, is a rank."""
    return process_id.partition("-")[0]


def ranks_of(nodes: Sequence[Node], port: int) -> list[Rank]:
    """The ranks of a replica on these nodes, which meet at this port of the first one.

    Raises:
        Problem: 503 ``node_gone``, a node has not said its address since this server started.
    """
    addresses = [node.address for node in nodes]
    known = [address for address in addresses if address is not None]
    if len(known) < len(nodes):
        node = nodes[addresses.index(None)]
        raise Problem(
            Code.NODE_GONE, f"The node {node.node_id} is not linked.", hint="`xinference cluster info` shows its state."
        )
    head = known[0].host
    return [
        Rank(number, len(nodes), address.host, head, port, address.interface) for number, address in enumerate(known)
    ]


class Gang:
    """A `ReplicaLike` of one replica for each rank; rank 0 answers the requests.

    It is ready when all ranks are. The exit of any rank ends the others, because the rest of them would wait for it for
    ever; the exit of the gang is the first one, and it is reported when the last process has ended.
    """

    def __init__(self, ranks: Sequence[ReplicaLike], changed: Callable[[], None] = lambda: None) -> None:
        """Take over the replicas of all ranks, rank 0 first; `changed` is called after each new snapshot."""
        self._ranks = tuple(ranks)
        self._changed = changed
        self._first: Exit | None = None
        """The first exit of a rank."""
        self._results = ReplicaResults()
        for rank in self._ranks:
            rank.report_to(self._report)
        self._tasks = (asyncio.create_task(self._follow_start()), asyncio.create_task(self._follow_exits()))

    @property
    def ranks(self) -> tuple[ReplicaLike, ...]:
        """The replicas of all ranks, rank 0 first."""
        return self._ranks

    @property
    def snapshot(self) -> ReplicaSnapshot:
        """The snapshot of rank 0, with the state and the exit of the whole."""
        head = self._ranks[0].snapshot
        snapshots = [rank.snapshot for rank in self._ranks]
        fault = next((each.fault for each in snapshots if each.fault is not None), None)
        if self._results.is_over:
            return dataclasses.replace(head, state=ReplicaState.EXITED, exit=self._first, fault=fault)
        if self._first is not None or any(each.state is ReplicaState.EXITED for each in snapshots):
            return dataclasses.replace(head, state=ReplicaState.STOPPING, exit=None, fault=fault)
        if head.state is ReplicaState.READY:
            behind = [each.state for each in snapshots if each.state is not ReplicaState.READY]
            return dataclasses.replace(head, state=behind[0] if behind else ReplicaState.READY, fault=fault)
        return dataclasses.replace(head, fault=fault)

    def report_to(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each new snapshot from now on."""
        self._changed = changed

    async def wait_ready(self) -> None:
        """Wait until all ranks are ready. Cancellation before that ends all.

        Raises:
            Problem: that of the rank that failed first.
        """
        await self._results.wait_ready(self.stop)

    async def wait_exited(self) -> Exit:
        """Wait until the processes of all ranks have ended.

        Raises:
            Problem: 503 ``engine_detached``: this server will not be notified.
        """
        return await self._results.wait_exited()

    async def stop(self) -> Exit | None:
        """Stop all ranks, and wait for their exits; None if they were detached before."""
        await asyncio.gather(*(rank.stop() for rank in self._ranks))
        return await self._results.wait_stopped()

    async def detach(self) -> None:
        """Disconnect from all ranks; their engines run on for a later server."""
        await asyncio.gather(*(rank.detach() for rank in self._ranks))
        await asyncio.wait(self._tasks)

    # -- tasks ------------------------------------------------------------------------------------------------

    async def _follow_start(self) -> None:
        """Resolve `wait_ready`."""
        waits = [asyncio.create_task(rank.wait_ready()) for rank in self._ranks]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_EXCEPTION)
            # Of ranks that failed at once, a problem of its own says more than that of the rank that was stopped.
            failed = [(number, wait.exception()) for number, wait in enumerate(waits) if wait in done]
            errors = [(number, error) for number, error in failed if error is not None]
            if not errors:
                self._results.set_ready()
                self._report()
                return
            number, error = min(errors, key=lambda each: _is_result_of_stop(each[1]))
            self._results.fail(self._named(number, error) if isinstance(error, Problem) else error)
        finally:
            # Not cancelled: a cancelled wait would stop the engine of its rank a second time.
            for wait in waits:
                wait.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _follow_exits(self) -> None:
        """Stop all ranks when one has exited, and then resolve `wait_exited`."""
        waits = [asyncio.create_task(rank.wait_exited()) for rank in self._ranks]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        number = next(number for number, wait in enumerate(waits) if wait.done())
        try:
            self._first = self._exit_of(number, waits[number].result())
        except Problem as problem:  # detached
            self._results.detach(problem)
            return
        self._report()
        await asyncio.gather(*(rank.stop() for rank in self._ranks), return_exceptions=True)
        self._results.set_exited(self._first)
        self._report()

    def _exit_of(self, number: int, exit: Exit) -> Exit:
        """The exit of the whole because of that of one rank."""
        if exit.requested or number == 0:
            return exit
        where = f"ended with its rank {number} on {self._ranks[number].snapshot.node_id}, which {exit.reason}"
        return dataclasses.replace(exit, detail=where)

    def _named(self, number: int, problem: Problem) -> Problem:
        """The problem of a rank, with the rank."""
        if number == 0 or problem.code == Code.ENGINE_DETACHED:
            return problem
        node = self._ranks[number].snapshot.node_id
        return problem.replace(cause=f"Rank {number} of the replica on {node} failed: {problem.cause}")

    def _report(self) -> None:
        self._changed()


def _is_result_of_stop(error: BaseException) -> bool:
    """Whether a rank failed only because it was stopped with the others."""
    return isinstance(error, Problem) and error.code == Code.ENGINE_STOPPED
