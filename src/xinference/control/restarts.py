"""The restarts and reloads of deployments: each one is replaced by a new one of its stored request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from xinference.control.deployment_names import DeploymentNames
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.kept_launches import stored_request
from xinference.control.planner import Planner
from xinference.control.terminations import Terminations
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.deployments.replica_changes import not_loaded
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.launch.request import LaunchRequest
from xinference.store.launch_history import LaunchHistory

#: Makes the new request of a deployment of its stored one.
Change = Callable[[LaunchRequest], LaunchRequest]


class Restarts:
    """Restarts deployments, and remembers the last reload of each."""

    def __init__(
        self,
        registry: DeploymentRegistry,
        names: DeploymentNames,
        terminations: Terminations,
        planner: Planner,
        context: DeploymentContext,
        history: LaunchHistory,
    ) -> None:
        self._registry = registry
        self._names = names
        self._terminations = terminations
        self._planner = planner
        self._context = context
        self._history = history
        self._reloads: dict[str, asyncio.Task[None]] = {}
        """The last reload of each deployment."""

    def close(self) -> None:
        """Cancel all reloads."""
        for task in self._reloads.values():
            task.cancel()

    def forget(self, uid: str) -> None:
        """Forget the last reload of a deployment, which has ended."""
        self._reloads.pop(uid, None)

    async def restart(self, uid: str, change: Change | None = None, *, seconds: float | None = None) -> None:
        """Stop a deployment after its running requests and start it again, or start one that is unloaded or has failed.

        Args:
            change: makes the new request of the stored one.
            seconds: maximum time for the last answers; None: `drain_seconds`.

        Raises:
            Problem: 404; the model cannot be planned; 409, it is being loaded. It runs on as before then.
        """
        self._registry.deployment(uid)
        async with self._names.reserved_uids.hold(uid):
            await self._terminations.wait(uid)
            await self.start_again(self._registry.deployment(uid), change, seconds)

    async def start_again(
        self, deployment: Deployment | BrokenDeployment, change: Change | None = None, seconds: float | None = None
    ) -> None:
        """Replace a deployment by one of its stored request; the caller has reserved its uid.

        Raises:
            Problem: as `restart`.
        """
        uid, failed = deployment.uid, deployment.problem is not None
        request = self._request_of(deployment)
        if change is not None:
            request = change(request)
        # Not sized: its own engine may still use the memory.
        launch = await self._planner.resolve(await self._planner.draft(request, uid), request)
        await self._names.check(launch)
        if isinstance(deployment, Deployment) and not failed:
            await deployment.unload(for_restart=True, seconds=seconds)
        self._terminations.check_absent(deployment)
        await deployment.end("terminate")
        self._terminations.check_absent(deployment)
        stored = msgspec.json.encode(launch.request).decode()
        self._context.store.note_restart(uid, stored)
        self._context.events.clear(uid)
        if failed:
            self._history.begun(uid, stored, time.time())
        replacement = Deployment(launch, self._context, deployment.created, ran=True, restarting=not failed)
        self._registry.add(replacement)
        replacement.begin()
        self._registry.publish()

    async def reload(self, uid: str, options: Mapping[str, Any], seconds: float) -> None:
        """Begin a restart with these engine options in place of earlier ones; None removes an option.

        Raises:
            Problem: 404; 400, the options are not valid; 409, the model is being loaded or reloaded.
        """
        if (running := self._reloads.get(uid)) is not None and not running.done():
            raise Problem(Code.NOT_RUNNING, f"{uid} is being reloaded.", hint="Retry when it is ready.")

        def change(request: LaunchRequest) -> LaunchRequest:
            merged = {name: value for name, value in {**request.options, **options}.items() if value is not None}
            return msgspec.structs.replace(request, options=merged, asked={})

        await self._check_reload(uid, change)
        restart = asyncio.create_task(self.restart(uid, change, seconds=seconds), name=f"reload of {uid}")
        restart.add_done_callback(lambda task: task.cancelled() or task.exception())  # `reload_status` reads it
        self._reloads[uid] = restart

    def reload_status(self, uid: str) -> dict[str, Any]:
        """The state of the last reload: ``idle`` if there was none, ``reloading``, ``ready`` or ``error``.

        Raises:
            Problem: 404, with the running models.
        """
        deployment, last = self._registry.deployment(uid), self._reloads.get(uid)
        stage = str(deployment.description["stage"])
        if last is None:
            return {"status": "idle", "stage": stage, "error": None}
        problem = last.exception() if last.done() and not last.cancelled() else deployment.problem
        if problem := problem or deployment.problem:
            return {"status": "error", "stage": stage, "error": str(problem)}
        is_ready = last.done() and not deployment.launching
        return {"status": "ready" if is_ready else "reloading", "stage": stage, "error": None}

    async def _check_reload(self, uid: str, change: Change) -> None:
        """Check that a deployment can be restarted with a changed request.

        Raises:
            Problem: as `reload`.
        """
        deployment = self._registry.running(uid)
        if deployment.problem is None and deployment.launching:
            raise not_loaded(uid, deployment.snapshot.stage)
        await self._planner.draft(change(deployment.plan.request), uid)

    def _request_of(self, deployment: Deployment | BrokenDeployment) -> LaunchRequest:
        """The request of a deployment.

        Raises:
            Problem: 500 ``unreadable_row``.
        """
        if isinstance(deployment, Deployment):
            return deployment.plan.request
        rows = self._context.store.deployments()
        row = next((row for row in rows if row.uid == deployment.uid), None)
        if row is None:
            raise self._registry.not_found(deployment.uid)
        return stored_request(row)
