"""Loads and unloads deployments, for requests that need them and for users."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from xinference.config import Settings
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.publisher import Publisher
from xinference.control.restarts import Restarts
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem, bad_request
from xinference.routing.table import Route
from xinference.task_set import TaskSet


class Loads:
    """The loads of models on demand, and of deployments that were unloaded or have failed."""

    def __init__(
        self, registry: DeploymentRegistry, publisher: Publisher, restarts: Restarts, settings: Settings
    ) -> None:
        self._registry = registry
        self._publisher = publisher
        self._restarts = restarts
        self._wait_seconds = settings.on_demand_wait_seconds
        self._loading = TaskSet()
        """The loads that no caller waits for."""

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """See `Router.ensure_ready`."""
        route = self._publisher.table.routes.get(uid)
        existing = self._registry.get((route.parent or uid) if route else uid)
        deployment = existing if isinstance(existing, Deployment) else None
        end = time.monotonic() + deadline
        with deployment.wait(uid) if deployment else contextlib.nullcontext():
            return await self._publisher.wait_until_ready(uid, end, deployment, self._registry.not_found)

    async def load(self, uid: str, *, wait: bool = True) -> None:
        """Load a model that is unloaded, or start one that has failed; `wait`: until a model on demand is loaded.

        Raises:
            Problem: 404; the model cannot be planned; or a model on demand cannot be loaded.
        """
        deployment = self._registry.deployment(uid)
        if not isinstance(deployment, Deployment) or deployment.problem is not None or deployment.snapshot.unloaded:
            await self._restarts.restart(uid)
        elif deployment.plan.request.on_demand:
            loading = self.ensure_ready(uid, self._wait_seconds)
            if wait:
                await loading
            else:
                self._loading.start(_without_answer(loading))

    async def unload(self, uid: str) -> None:
        """Stop the engines of a deployment after their running requests; its row stays.

        A model on demand is loaded again by its next request, another one by `load`.

        Raises:
            Problem: 404; 409, the model is being loaded.
        """
        deployment = self._registry.running(uid)
        if deployment.problem is None:  # the engines of a failed deployment have ended
            await deployment.unload()

    async def set_terms(self, uid: str, changes: Mapping[str, Any]) -> None:
        """Change when a model on demand is unloaded; at once, and for later servers too.

        Args:
            changes: fields of the launch request: `ttl`, `pin`, `priority`.

        Raises:
            Problem: 404; 400, the model is not on demand; 409, the deployment has failed.
        """
        deployment = self._registry.running(uid)
        if not deployment.plan.request.on_demand:
            raise bad_request(
                f"{uid} is not on demand, so it stays loaded: {' and '.join(changes)} cannot be changed.",
                hint="Launch it with --on-demand (on_demand).",
            )
        await deployment.set_terms(changes)

    def close(self) -> None:
        """End the waits for loads."""
        self._loading.cancel()


async def _without_answer(loading: Awaitable[object]) -> None:
    """Wait for a load that no caller waits for; its events have its problem."""
    with contextlib.suppress(Problem):
        await loading
