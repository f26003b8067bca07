"""The tables that the supervisor sends to the gateways of workers, and the answers to their requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from xinference.cluster.members import Members
from xinference.errors import Problem

log = logging.getLogger(__name__)
#: Changes within this time are sent as one, in seconds.
DELAY_SECONDS = 0.05


class GatewayTables:
    """The table of routes and keys for workers that serve clients; nobody gets it while there is no such worker."""

    def __init__(self, members: Members, publish: Callable[[], None]) -> None:
        """`publish` sends the cluster's table, with `current` in it."""
        self._members = members
        self._publish = publish
        self._make: Callable[[], bytes] | None = None
        self._load: Callable[[str], Awaitable[object]] | None = None
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        members.wanted = self.load

    def begin(self, make: Callable[[], bytes], load: Callable[[str], Awaitable[object]]) -> None:
        """Send tables from now on: this server knows its models.

        Args:
            make: makes the table of now.
            load: loads a model on demand.
        """
        self._make, self._load = make, load
        self.changed()

    def current(self) -> bytes | None:
        """The table of now; None: workers keep the one that they have."""
        return self._make() if self._make is not None and any(each.serves for each in self._members) else None

    def changed(self) -> None:
        """Send a table soon: routes or keys have changed, or a worker that serves has come."""
        if self._timer is None and self._make is not None and any(each.serves for each in self._members):
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self._send)

    def load(self, uid: str) -> None:
        """Load a model on demand for the requests that wait at a worker."""
        if self._load is not None and uid not in self._loads:
            self._loads[uid] = asyncio.create_task(self._run(uid, self._load), name=f"load of {uid}")

    def close(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._loads.values():
            task.cancel()

    def _send(self) -> None:
        self._timer = None
        self._publish()

    async def _run(self, uid: str, load: Callable[[str], Awaitable[object]]) -> None:
        try:
            with contextlib.suppress(Problem):  # its events have the problem
                await load(uid)
        finally:
            del self._loads[uid]
