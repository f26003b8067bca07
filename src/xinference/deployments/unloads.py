"""The unloads of one deployment: those that users request, and evictions. A plain object of the owner."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from xinference.deployments.context import DeploymentContext
from xinference.deployments.drain import drain
from xinference.deployments.inbox import Inbox, resolve
from xinference.deployments.messages import Drained, Unload
from xinference.deployments.record import Record
from xinference.deployments.replica_changes import not_loaded
from xinference.deployments.replica_set import ReplicaSet
from xinference.deployments.snapshot import Residency, Stage, Status
from xinference.errors import Problem

#: The states of an on-demand model that holds no memory, or none soon.
_UNLOADED_STATES = (Residency.UNLOADED, Residency.DRAINING)


class Unloads:
    """Drains and stops the engines of a model that is unloaded. Only the owner calls its methods."""

    def __init__(self, context: DeploymentContext, inbox: Inbox, record: Record, replicas: ReplicaSet) -> None:
        self._context = context
        self._inbox = inbox
        self._record = record
        self._replicas = replicas
        self._replies: list[asyncio.Future[None]] = []
        """The replies to the users who unload the model."""

    def begin(self, message: Unload) -> None:
        """Publish the route without targets, and wait for the last answers; refuse if the model is not loaded."""
        snapshot = self._record.snapshot
        residency, uid = snapshot.residency, snapshot.uid
        was_loaded = snapshot.was_ready and not snapshot.unloaded
        is_loaded = was_loaded if residency is None else residency is Residency.LOADED
        if snapshot.launching or not (is_loaded or snapshot.unloaded or residency in _UNLOADED_STATES):
            resolve(message.done, not_loaded(uid, snapshot.stage))
            return
        if not is_loaded and not self._replicas:
            resolve(message.done, None)
            return
        if not is_loaded:  # it is being unloaded
            self._replies.append(message.done)
            return
        try:
            if residency is None and not message.for_restart:
                self._context.store.set_unloaded(uid)
        except Problem as problem:
            resolve(message.done, problem)
            return
        self._replies.append(message.done)
        self._begin_drain(message)

    def _begin_drain(self, message: Unload) -> None:
        snapshot = self._record.snapshot
        if not message.for_restart:
            self._context.counts.unloaded(snapshot.uid, "asked")
        self._record.add_event(Stage.UNLOAD, "restarted by a user" if message.for_restart else "unloaded by a user")
        state: dict[str, Any] = {"unloaded": True} if snapshot.residency is None else {"residency": Residency.DRAINING}
        self._record.change(restarting=message.for_restart, **state)
        self._record.publish_status(Status.UNLOADING, Stage.UNLOAD)
        seconds = self._context.settings.drain_seconds if message.seconds is None else message.seconds
        self.drain(snapshot.replica_ids, seconds)

    def drain(self, replica_ids: tuple[str, ...], seconds: float = math.inf) -> None:
        """Put `Drained` after the last answers; without a limit for an eviction: a model in use is not stopped."""
        self._inbox.spawn(self._drain(replica_ids, seconds))

    async def stop(self) -> None:
        """Stop the engines, then release their memory; the state is `DRAINING` until then."""
        if self._replicas and self._record.snapshot.residency is not None:
            self._record.publish(residency=Residency.DRAINING)
        await self._replicas.stop_all()
        self._context.admission.release(self._record.snapshot.uid)
        self._record.change(used=None)
        self.resolve(None)

    def publish(self, content: str) -> None:
        """Publish that the model is unloaded, with an event."""
        self._record.publish_status(Status.UNLOADED, Stage.UNLOADED)
        self._record.add_event(Stage.UNLOADED, content)

    def resolve(self, result: Problem | None) -> None:
        """Answer the users who unload the model."""
        for reply in self._replies:
            resolve(reply, result)
        self._replies.clear()

    async def _drain(self, replica_ids: tuple[str, ...], seconds: float) -> None:
        await drain(self._context.load, lambda: replica_ids, seconds)
        self._inbox.put(Drained())
