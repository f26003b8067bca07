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
        self.snapshot = dataclasses.replace(
            self.snapshot,
            state=report.state,
            port=report.port,
            base_url=report.base_url,
            log_path=report.log_path,
            keeper_pid=report.keeper_pid,
            engine_pid=report.engine_pid,
            started_at=report.started_at,
            exit=report.exit,
            fault=report.fault,
            api_key=report.api_key or self.snapshot.api_key,
            context=report.context or self.snapshot.context,
        )
        self._changed()
        if report.state is ReplicaState.READY:
            self._results.set_ready()
        if report.state is ReplicaState.EXITED:
            exit = report.exit or Exit(None, None, (), 0.0)
            problem = Problem.from_dict(report.problem) if report.problem is not None else _died(exit)
            self._results.end(exit, problem)

    def fail(self, problem: Problem) -> None:
        """End a replica of which the node has no process."""
        if self.over:
            return
        fault = Fault.NODE_LOST if problem.code == Code.NODE_GONE and not self.stopping else None
        exit = Exit(None, None, problem.log_tail, 0.0, requested=self.stopping, fault=fault, detail=_detail(problem))
        self.snapshot = dataclasses.replace(self.snapshot, state=ReplicaState.EXITED, exit=exit)
        self._changed()
        self._results.end(exit, problem)


def _died(exit: Exit) -> Problem:
    return Problem(Code.ENGINE_DIED, f"The engine {exit.reason} before it was ready.", stage="start")


def _detail(problem: Problem) -> str:
    """The rest of the sentence "The engine …"."""
    return f"is gone: {problem.cause.rstrip('.')}"
