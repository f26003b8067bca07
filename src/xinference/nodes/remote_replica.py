"""A replica on another machine, mirrored from the reports of its node."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.nodes.messages import ReplicaReport
from xinference.process.command import Exit, Fault
from xinference.process.replica_results import ReplicaResults
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState


class RemoteReplica:
    """A `ReplicaLike` without a process here. Only its `RemoteNode` calls `apply` and `fail`."""

    def __init__(
        self, snapshot: ReplicaSnapshot, changed: Callable[[], None], stop: Callable[[RemoteReplica], None]
    ) -> None:
        """`stop` asks the node to stop the engine."""
        self.snapshot = snapshot
        self.stopping = False
        """The server wants it stopped: the request is repeated when the link is up again."""
        self._node_leaves = False
        self._node_stops = False
        self._changed = changed
        self._stop = stop
        self._serial = 0
        self._results = ReplicaResults()

    @property
    def over(self) -> bool:
        """Whether it has exited, or is not this server's any more."""
        return self._results.is_over

    # -- for the deployment -----------------------------------------------------------------------------------

    def report_to(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    async def wait_ready(self) -> None:
        await self._results.wait_ready(self.stop)

    async def wait_exited(self) -> Exit:
        return await self._results.wait_exited()

    async def stop(self) -> Exit | None:
        if not self.over:
            self.stopping = True
            self._stop(self)
        return await self._results.wait_stopped()

    async def detach(self) -> None:
        """End the mirror. The engine belongs to its node, which the server's end does not touch."""
        self._results.detach()

    # -- for the node -----------------------------------------------------------------------------------------

    def apply(self, report: ReplicaReport, *, is_first: bool = False) -> None:
        """Mirror a report, unless a newer one came before. `is_first`: of a new link, which counts from 1 again."""
        if self.over or (not is_first and report.serial <= self._serial):
            return
        self._serial = report.serial
        exit, problem = self._end_of(report)
        self.snapshot = dataclasses.replace(
            self.snapshot,
            state=self._mirrored(report.state),
            port=report.port,
            base_url=report.base_url,
            log_path=report.log_path,
            keeper_pid=report.keeper_pid,
            engine_pid=report.engine_pid,
            started_at=report.started_at,
            exit=exit,
            fault=report.fault,
            api_key=report.api_key or self.snapshot.api_key,
            context=report.context or self.snapshot.context,
        )
        self._changed()
        if report.state is ReplicaState.READY:
            self._results.set_ready()
        if report.state is ReplicaState.EXITED:
            exit = exit or Exit(None, None, (), 0.0)
            self._results.end(exit, problem or _died(exit))

    def note_leaving(self, *, is_leaving: bool, stops: bool) -> None:
        """Whether the worker of the node ends: then an exit is no fault.

        `stops`: it stops its engines now, and they get no more requests.
        """
        self._node_leaves, self._node_stops = is_leaving, stops
        if (state := self._mirrored(self.snapshot.state)) is not self.snapshot.state:
            self.snapshot = dataclasses.replace(self.snapshot, state=state)
            self._changed()

    def _mirrored(self, state: ReplicaState) -> ReplicaState:
        """The state for the server, which sends requests to an engine that is READY."""
        return ReplicaState.STOPPING if self._node_stops and state is ReplicaState.READY else state

    def _end_of(self, report: ReplicaReport) -> tuple[Exit | None, Problem | None]:
        """The exit in a report, and why the engine did not become ready; both name the end of the worker."""
        problem = None if report.problem is None else Problem.from_dict(report.problem)
        if report.exit is None or report.exit.fault is not None or self.stopping or not self._node_leaves:
            return report.exit, problem
        detail = f"was stopped, because the worker of the node {self.snapshot.node_id} ends"
        exit = dataclasses.replace(report.exit, requested=True, fault=Fault.NODE_LEFT, detail=detail)
        return exit, Problem(Code.NODE_LEAVING, f"The engine {detail}.", stage="start", log_tail=exit.log_tail)

    def fail(self, problem: Problem) -> None:
        """End a replica of which the node has no process."""
        if self.over:
            return
        fault = None if self.stopping else self._fault_of(problem)
        exit = Exit(None, None, problem.log_tail, 0.0, requested=self.stopping, fault=fault, detail=_detail(problem))
        self.snapshot = dataclasses.replace(self.snapshot, state=ReplicaState.EXITED, exit=exit)
        self._changed()
        self._results.end(exit, problem)

    def _fault_of(self, problem: Problem) -> Fault | None:
        """The fault of an end; a node that refuses a start because it leaves has said so before."""
        if problem.code == Code.NODE_LEAVING and self._node_leaves:
            return Fault.NODE_LEFT
        return Fault.NODE_LOST if problem.code == Code.NODE_GONE else None


def _died(exit: Exit) -> Problem:
    return Problem(Code.ENGINE_DIED, f"The engine {exit.reason} before it was ready.", stage="start")


def _detail(problem: Problem) -> str:
    """The rest of the sentence "The engine …"."""
    return f"is gone: {problem.cause.rstrip('.')}"
