"""The terminations of deployments: one task for each, which ends the engines and removes the row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.store_writer import StoreWriter
from xinference.deployments.broken_deployment import BrokenDeployment
from xinference.deployments.deployment import Deployment
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.process.log_files import remove_old_logs
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.store.launch_history import LaunchHistory


class Terminations:
    """Ends deployments. A uid is in `uids` from the beginning of its termination until it is free."""

    def __init__(
        self,
        registry: DeploymentRegistry,
        store: Store,
        writer: StoreWriter,
        events: EventLog,
        history: LaunchHistory,
        log_dir: Path,
        ended: Callable[[str], None] = lambda uid: None,
    ) -> None:
        """`ended` is called with the uid of each deployment that has ended."""
        self._registry = registry
        self._store = store
        self._writer = writer
        self._events = events
        self._history = history
        self._log_dir = log_dir
        self._ended = ended
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def uids(self) -> Collection[str]:
        """The uids of the deployments that are being terminated."""
        return self._running.keys()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The running terminations."""
        return list(self._running.values())

    def begin(self, deployment: Deployment | BrokenDeployment) -> asyncio.Task[None]:
        """Begin the termination of a deployment, or return its termination if it has begun."""
        uid = deployment.uid
        if (running := self._running.get(uid)) is not None:
            return running
        ending = self._running[uid] = asyncio.create_task(self._end(deployment), name=f"end of {uid}")
        return ending

    async def terminate(self, uid: str) -> None:
        """Stop the engines of a deployment and delete it.

        Raises:
            Problem: 404, with the running models.
        """
        ending = self.begin(self._registry.deployment(uid))
        await asyncio.shield(ending)  # a client that disconnects does not interrupt the termination

    async def cancel(self, uid: str) -> None:
        """Cancel a launch that is not ready; each client that waits for it gets the error.

        Raises:
            Problem: 404; 409 ``not_launching``, the deployment is ready or has failed.
        """
        deployment = self._registry.deployment(uid)
        if not deployment.launching:
            state = "failed" if deployment.problem else "ready"
            hint = f"`xinference terminate --model-uid {uid}` ends it."
            raise Problem(Code.NOT_LAUNCHING, f"{uid} is not being launched: it is {state}.", hint=hint)
        await self.terminate(uid)

    async def wait(self, uid: str) -> None:
        """Wait until no deployment of this uid is being terminated."""
        while (ending := self._running.get(uid)) is not None:
            await asyncio.wait({ending})

    def check_absent(self, deployment: Deployment | BrokenDeployment) -> None:
        """Check that a deployment is not terminated.

        Raises:
            Problem: 409 ``launch_cancelled``.
        """
        if deployment.uid in self._running or not self._registry.has(deployment):
            raise Problem(Code.LAUNCH_CANCELLED, f"{deployment.uid} was terminated.", hint="Launch it again.")

    async def _end(self, deployment: Deployment | BrokenDeployment) -> None:
        """End a deployment. Its uid is free only after its engines have exited and its row is removed."""
        uid = deployment.uid
        try:
            self._store.set_unwanted(uid)
            await deployment.end("terminate")
            self._events.add(uid, "TERMINATED", "stop", "terminated")
            self._history.ended(uid)
            await self._writer.remove_deployment(uid)
            self._registry.remove(uid)
            self._ended(uid)
            self._registry.publish()
        finally:
            del self._running[uid]
        await asyncio.to_thread(remove_old_logs, self._log_dir, self._registry.log_paths())
