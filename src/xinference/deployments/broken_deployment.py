"""A deployment whose stored row cannot be used, for its callers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.deployments.adoption import end_adopted
from xinference.deployments.context import Ending
from xinference.deployments.progress import progress
from xinference.deployments.snapshot import Stage, Status
from xinference.errors import Problem
from xinference.nodes.node import ReplicaLike
from xinference.process.node_log import EngineLog
from xinference.routing.table import Route


@dataclass(frozen=True)
class BrokenDeployment:
    """A stored row whose request cannot be read or planned."""

    uid: str
    problem: Problem
    created: float
    adopted: tuple[ReplicaLike, ...] = ()
    """Running replicas of an earlier server, of a release that did not store their launch. They get no requests."""
    ready: bool = False
    launching: bool = False
    status: Status = Status.ERROR
    replicas: tuple[dict[str, Any], ...] = ()

    @property
    def description(self) -> dict[str, Any]:
        return {
            "model_uid": self.uid,
            "status": self.status,
            "stage": Stage.FAILED,
            "instance_created_ts": int(self.created),
        }

    @property
    def instance(self) -> dict[str, Any]:
        return {**self.description, "problem": self.problem.to_dict(), "replicas": [], "replica_statuses": []}

    @property
    def log_paths(self) -> list[Path]:
        return [log for log in self.replica_logs.values() if isinstance(log, Path)]

    @property
    def replica_logs(self) -> dict[str, EngineLog]:
        """Name of a process -> its log; the numbers of the replicas are not known."""
        return {process.snapshot.replica_id: process.snapshot.log for process in self.adopted}

    @property
    def progress(self) -> dict[str, Any]:
        return progress(Stage.FAILED, self.problem.stage or Stage.PENDING, None, (), self.created)

    @property
    def route(self) -> Route:
        """A route without targets. The model type is unknown; ``LLM`` is the default in error texts."""
        return Route(
            self.uid,
            engine="",
            model_type="LLM",
            model_name=self.uid,
            context_length=None,
            created=self.created,
            stage=Stage.FAILED,
            problem=self.problem,
        )

    async def end(self, how: Ending) -> None:
        """End or detach the replicas of an earlier server."""
        await end_adopted(self.adopted, how)
