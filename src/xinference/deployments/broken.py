"""A stored deployment that can't be taken up: shown with its reason, and it can be terminated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.deployments.progress import progress
from xinference.errors import Problem
from xinference.routing.table import Route


@dataclass(frozen=True)
class BrokenDeployment:
    """What is left of a row whose request can't be read or planned any more. Its engine, if any, ends by itself."""

    uid: str
    problem: Problem
    created: float
    ready: bool = False
    launching: bool = False
    log_paths: tuple[Path, ...] = ()
    replicas: tuple[dict[str, Any], ...] = ()

    @property
    def description(self) -> dict[str, Any]:
        return {"model_uid": self.uid, "status": "ERROR", "stage": "failed", "instance_created_ts": int(self.created)}

    @property
    def instance(self) -> dict[str, Any]:
        return {**self.description, "problem": self.problem.to_dict(), "replicas": [], "replica_statuses": []}

    @property
    def progress(self) -> dict[str, Any]:
        return progress("failed", self.problem.stage or "pending", None, (), self.created)

    @property
    def route(self) -> Route:
        """Nothing is known of its model: the type is what errors call a model by default."""
        return Route(
            self.uid,
            engine="",
            model_type="LLM",
            model_name=self.uid,
            context_length=None,
            created=self.created,
            stage="failed",
            problem=self.problem,
        )

    async def end(self, how: str) -> None:
        """Nothing of it runs here."""
