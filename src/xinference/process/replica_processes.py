"""The processes of one replica: its engine, and the keeper that has started it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.process.leftovers import ProcessIdentity, end_leftovers
from xinference.process.link import KeeperLink, KeeperProcess

#: Maximum time for an answer of a new keeper. A machine that swaps or stalls lets it hang.
_SPAWN_SECONDS = 60.0
#: Maximum time for the exit of a keeper that has finished.
_KEEPER_EXIT_SECONDS = 3.0


class ReplicaProcesses:
    """The keeper of one replica, the connection to it, and its engine: started here, or adopted.

    There is no engine before `start` or `adopt`.
    """

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._keeper: KeeperProcess | None = None
        """The keeper, if this server has started it."""
        self._adopted_keeper: ProcessIdentity | None = None
        """The keeper, if an earlier server has started it."""
        self._engine: ProcessIdentity | None = None
        self.link: KeeperLink | None = None
        """The connection to the keeper; None: there is none yet."""
        self._began = time.monotonic()

    async def start(self, spec: Mapping[str, Any]) -> KeeperLink:
        """Start a keeper and its engine, in place of what an earlier keeper has left.

        Raises:
            Problem: no keeper answers; its processes are left to `end`.
        """
        if self._socket_path.exists():
            await self.end()
        self._keeper = await KeeperProcess.spawn(spec, self._socket_path)
        return self.adopt(await self._keeper.connect(self._socket_path, _SPAWN_SECONDS))

    def adopt(self, link: KeeperLink) -> KeeperLink:
        """Hold the keeper that answers through `link`, and its engine."""
        self.link, hello = link, link.hello
        # The keeper of an earlier release tells only the time of day at the start.
        self._began = time.monotonic() - hello.get("age_seconds", max(0.0, time.time() - hello["started_at"]))
        self._engine = ProcessIdentity.of(hello["engine_pid"])
        self._adopted_keeper = None if self._keeper else ProcessIdentity.of(hello["keeper_pid"])
        return link

    @property
    def is_adopted(self) -> bool:
        """Whether an earlier server has started the engine."""
        return self._keeper is None

    @property
    def ran_seconds(self) -> float:
        """The time since the start of the engine; the time of day may be set meanwhile."""
        return time.monotonic() - self._began

    def last_lines(self) -> tuple[str, ...]:
        """The last lines on the standard error of the keeper; none of an adopted keeper, whose output is elsewhere."""
        return self._keeper.stderr_tail() if self._keeper else ()

    def kill_engine(self) -> None:
        """Kill the engine's main process; the keeper ends the others."""
        if self._engine is not None and self._engine.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._engine.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill the keeper, the engine and their descendants, as far as they still run."""
        await asyncio.to_thread(end_leftovers, self._socket_path, self._engine)

    async def finish(self) -> None:
        """Acknowledge the exit of the engine, so that the keeper exits too, and wait for that."""
        if self.link:
            self.link.acknowledge_exit()
        if not await self._keeper_exits():
            await self.end()
            await self._keeper_exits()

    async def _keeper_exits(self) -> bool:
        """Wait for the keeper's exit, which removes its socket; False: timeout. An adopted keeper is not a child."""
        deadline = time.monotonic() + _KEEPER_EXIT_SECONDS
        while self._keeper.runs() if self._keeper else self._adopted_keeper and self._adopted_keeper.alive():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def terminate_own_keeper(self) -> bool:
        """End a keeper that this server has started, and its engine; False: it has started none."""
        if self._keeper:
            self._keeper.terminate()
        return self._keeper is not None

    def release(self) -> None:
        """Disconnect from the keeper, which waits its grace period for another server, and close its files."""
        if self.link:
            self.link.close()
        if self._keeper:
            self._keeper.release()
