"""The helper tasks of the replicas of one deployment. They change no state, and only put messages into the inbox."""

from __future__ import annotations

import asyncio
import contextlib
import time

from xinference.config import Settings
from xinference.deployments.drain import drain
from xinference.deployments.engine_starter import Starter
from xinference.deployments.inbox import Inbox
from xinference.deployments.messages import ReplicaDrained, ReplicaExited, ReplicaReady, RestartDue
from xinference.errors import Problem
from xinference.nodes.node import ReplicaLike
from xinference.routing.interfaces import ReplicaLoad

#: A request that ended within this time before an exit was in flight at it.
REQUEST_SECONDS = 2.0
#: Maximum time to wait for the counts of all gateway processes.
COUNT_SECONDS = 2.0


class Supervision:
    """Watches, drains and stops the processes of the replicas, by their numbers."""

    def __init__(self, starter: Starter, settings: Settings, load: ReplicaLoad, inbox: Inbox) -> None:
        self._starter = starter
        self._settings = settings
        self._load = load
        self._inbox = inbox

    def watch(self, number: int, process: ReplicaLike) -> None:
        """Put a message when a process is ready, and when it has exited."""
        self._inbox.spawn(self._watch(number, process))

    def restart_after(self, number: int, delay: float) -> None:
        """Put a message after `delay` seconds: the replica is due to be started."""
        self._inbox.spawn(self._restart_after(number, delay))

    def drain(self, number: int, process: ReplicaLike) -> None:
        """Put a message after the last answer of a process, at most `drain_seconds` later."""
        self._inbox.spawn(self._drain(number, process))

    def stop(self, process: ReplicaLike) -> None:
        """Stop a process; `watch` puts the message of its exit."""
        self._inbox.spawn(_stop(process))

    async def _watch(self, number: int, process: ReplicaLike) -> None:
        try:
            await process.wait_ready()
        except Problem as problem:
            self._inbox.put(ReplicaExited(number, process, process.snapshot.exit, problem))
            return
        self._inbox.put(ReplicaReady(number, process, await self._starter.measure(process)))
        try:
            exit = await process.wait_exited()
        except Problem:
            return  # the process was detached
        had_requests = not exit.requested and await self._had_requests(process.snapshot.replica_id)
        self._inbox.put(ReplicaExited(number, process, exit, had_requests=had_requests))

    async def _had_requests(self, replica_id: str) -> bool:
        """Whether requests were in flight at a replica when its process exited."""
        exited = time.monotonic()
        with contextlib.suppress(TimeoutError):  # the counts of a process that hangs stay as they were
            await asyncio.wait_for(self._load.settled(), COUNT_SECONDS)
        last_end = self._load.last_end(replica_id)
        return self._load.at(replica_id) > 0 or (last_end is not None and last_end >= exited - REQUEST_SECONDS)

    async def _restart_after(self, number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        self._inbox.put(RestartDue(number))

    async def _drain(self, number: int, process: ReplicaLike) -> None:
        ids = (process.snapshot.replica_id,)
        in_time = await drain(self._load, lambda: ids, self._settings.drain_seconds)
        self._inbox.put(ReplicaDrained(number, process, in_time))


async def _stop(process: ReplicaLike) -> None:
    await process.stop()
