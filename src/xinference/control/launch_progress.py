"""The progress and the events of launches, also of failed ones, which are no longer in the list of deployments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from xinference.control.deployment_registry import DeploymentRegistry
from xinference.deployments import progress
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import Stage, Status
from xinference.errors import Problem
from xinference.store.event_log import EventLog, final_event
from xinference.store.launch_history import LaunchHistory


class LaunchProgress:
    """Reads the events of deployments and the problems of the history."""

    def __init__(self, registry: DeploymentRegistry, events: EventLog, history: LaunchHistory) -> None:
        self._registry = registry
        self._events = events
        self._history = history

    def progress(self, uid: str) -> dict[str, Any]:
        """The progress of a launch in the form of the API; for an unknown uid, no stage has begun."""
        deployment = self._registry.get(uid)
        if deployment is not None:
            return deployment.progress
        failed = self._history.failure(uid)
        if failed is None or failed.problem is None:
            return progress.unknown()
        return progress.progress(Stage.FAILED, failed.problem.stage or Stage.PENDING, None, (), failed.created)

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first.

        Raises:
            Problem: 404, with the running models.
        """
        self._registry.deployment(uid)
        return self._events.stored(uid)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until it is ready, has failed or is terminated.

        A launch that has failed may have left the list already; the history has its problem.

        Raises:
            Problem: 404, with the running models.
        """
        if uid not in self._registry and (failed := self._history.failure(uid)) and failed.problem:
            return _failure_only(failed.problem)
        return self._follow(self._registry.deployment(uid))

    async def _follow(self, deployment: Deployment | BrokenDeployment) -> AsyncIterator[dict[str, Any]]:
        # Read when the iteration starts: a deployment that has ended since the call sends no further event.
        settled: dict[str, Any] | None = None
        if deployment.problem is not None:
            settled = _failed(deployment.problem)
        elif deployment.ready or deployment.status is Status.UNLOADED:
            settled = final_event("READY", "ready") | {"model": deployment.description}
        async for event in self._events.follow(deployment.uid, settled):
            yield event


async def _failure_only(problem: Problem) -> AsyncIterator[dict[str, Any]]:
    yield _failed(problem)


def _failed(problem: Problem) -> dict[str, Any]:
    return final_event("FAILED", problem.cause) | {"problem": problem.to_dict()}
