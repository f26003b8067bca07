"""One engine as the server sees it: five states, one owner task."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from xinference.config import Settings
from xinference.errors import Problem
from xinference.process.command import EngineCommand, Exit
from xinference.process.leftovers import ProcessIdentity, end_leftovers
from xinference.process.link import KeeperLink, KeeperProcess, free_port, keeper_spec, private_run_dir
from xinference.process.logs import TAIL_LINES, read_tail
from xinference.process.probe import Endpoint, Look, look
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState, exit_from, new_snapshot

__all__ = ["Replica", "ReplicaSnapshot", "ReplicaState"]

#: How long a keeper may take to answer: a new one, an earlier server's, and one that has nothing left to do.
_SPAWN_SECONDS, _ADOPT_SECONDS, _FAREWELL_SECONDS = 15.0, 3.0, 3.0
#: Beyond `stop_seconds`, before a keeper that reports nothing is killed with all that it keeps.
_OVERDUE_SECONDS = 5.0
#: The least time an adopted engine gets to answer, however long ago it was started.
_ADOPTED_START_SECONDS = 10.0


class _Told(enum.Enum):
    """What the owner task is told, besides how the engine ended (an `Exit`)."""

    STOP = enum.auto()
    DETACH = enum.auto()
    HEALTHY = enum.auto()
    TIMED_OUT = enum.auto()
    REPLACED = enum.auto()
    LOST = enum.auto()
    OVERDUE = enum.auto()


class Replica:
    """An engine process and its keeper, owned by one asyncio task.

    Make one with `start` or `adopt`. Public methods send the owner a request or wait for its result; only the owner
    changes anything. `snapshot` may be read at any time.
    """

    def __init__(self, snapshot: ReplicaSnapshot, endpoint: Endpoint, settings: Settings, socket_path: Path) -> None:
        self._snapshot = snapshot
        self._endpoint = endpoint
        self._settings = settings
        self._socket_path = socket_path
        self._inbox: asyncio.Queue[_Told | Exit] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[Exit] = loop.create_future()
        for result in (self._ready, self._exited):
            result.add_done_callback(lambda done: done.exception())  # not everybody asks
        self._keeper: KeeperProcess | None = None
        self._link: KeeperLink | None = None
        self._engine: ProcessIdentity | None = None
        self._adopted: ProcessIdentity | None = None
        self._answered = False
        self._problem: Problem | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._owner: asyncio.Task[None] | None = None

    # -- making one

    @classmethod
    def start(cls, replica_id: str, command: EngineCommand, settings: Settings, *, log_path: Path) -> Replica:
        """Begin to start an engine on a free loopback port; `wait_ready` tells how it went.

        Raises:
            Problem: 500, the folder for sockets is not safe.
        """
        socket_path = private_run_dir(settings) / f"{replica_id}.sock"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        endpoint = Endpoint(free_port(), command.api_key, command.health_path, command.models_path, command.model_name)
        replica = cls(new_snapshot(replica_id, endpoint, command.context, log_path), endpoint, settings, socket_path)
        spec = keeper_spec(command, endpoint, settings, socket_path, log_path)
        replica._owner = asyncio.create_task(replica._own(spec), name=f"replica {replica_id}")
        return replica

    @classmethod
    async def adopt(cls, replica_id: str, settings: Settings) -> Replica | None:
        """Take over an engine that an earlier server started.

        It is READY if it answers now, STARTING if it does not yet, EXITED if it has ended meanwhile. None if no keeper
        answers; whatever such a keeper may have left behind has been ended then.
        """
        socket_path = private_run_dir(settings) / f"{replica_id}.sock"
        if not socket_path.exists():
            return None
        try:
            link = await KeeperLink.open(socket_path, _ADOPT_SECONDS)
        except OSError:
            await asyncio.to_thread(end_leftovers, socket_path, None)
            return None
        try:
            return await cls._take_over(replica_id, settings, socket_path, link)
        except (KeyError, TypeError):  # a keeper of another version: what it holds cannot be read
            link.close()
            await asyncio.to_thread(end_leftovers, socket_path, None)
            return None
        except BaseException:
            link.close()
            raise

    @classmethod
    async def _take_over(cls, replica_id: str, settings: Settings, socket_path: Path, link: KeeperLink) -> Replica:
        kept, running = link.hello["context"], link.hello["state"] == "running"
        endpoint = Endpoint(**kept["endpoint"])
        snapshot = new_snapshot(replica_id, endpoint, kept["context"], Path(kept["log_path"]))
        replica = cls(snapshot, endpoint, settings, socket_path)
        replica._welcome(link)
        if running:
            async with aiohttp.ClientSession() as session:
                if await look(endpoint, session, _ADOPT_SECONDS) is Look.HEALTHY:
                    replica._become_ready()
        replica._owner = asyncio.create_task(replica._own(None), name=f"replica {replica_id}")
        if not running:
            await replica.wait_exited()
        return replica

    # -- asking it

    @property
    def snapshot(self) -> ReplicaSnapshot:
        """What is known now."""
        return self._snapshot

    @property
    def state(self) -> ReplicaState:
        """Short for ``snapshot.state``."""
        return self._snapshot.state

    async def wait_ready(self) -> None:
        """Wait until the engine answers. Cancelling this before it does ends the engine.

        Raises:
            Problem: 503 ``engine_start_timeout``, ``engine_died`` or ``keeper_failed``, with the engine's last lines;
                409 ``engine_stopped``; 503 ``engine_detached``.
        """
        try:
            await asyncio.shield(self._ready)
        except asyncio.CancelledError:
            if not self._ready.done():
                await self.stop()
            raise

    async def wait_exited(self) -> Exit:
        """Wait until the engine and everything below it is gone.

        Raises:
            Problem: 503 ``engine_detached``, nobody here will know.
        """
        return await asyncio.shield(self._exited)

    async def stop(self) -> Exit | None:
        """End the engine, also one that is still starting, and wait for it; None if it was detached before."""
        self._inbox.put_nowait(_Told.STOP)
        try:
            return await self.wait_exited()
        except Problem:
            return None

    async def detach(self) -> None:
        """Leave the engine running for a later `adopt`; it lives for its grace period."""
        self._inbox.put_nowait(_Told.DETACH)
        if self._owner:
            await asyncio.wait({self._owner})

    # -- the owner

    async def _own(self, spec: Mapping[str, Any] | None) -> None:
        """The whole life: open, follow what happens, finish. The only code that changes anything."""
        try:
            if spec is not None:
                await self._open(spec)
            if (exit := await self._follow()) is not None:
                await self._finish(exit)
        except Problem as problem:  # no keeper, so no engine
            self._problem = problem
            await asyncio.to_thread(end_leftovers, self._socket_path, None)
            await self._finish(Exit(None, "SIGKILL", problem.log_tail, 0.0))
        except asyncio.CancelledError:
            self._abandon()
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            if self._link:
                self._link.close()
            if self._keeper:
                self._keeper.release()
            self._give_up_waiting()

    async def _open(self, spec: Mapping[str, Any]) -> None:
        if self._socket_path.exists():
            await asyncio.to_thread(end_leftovers, self._socket_path, None)
        self._keeper = await KeeperProcess.spawn(spec, self._socket_path)
        self._welcome(await self._keeper.connect(self._socket_path, _SPAWN_SECONDS))

    def _welcome(self, link: KeeperLink) -> None:
        """Take note of a keeper that has said hello."""
        self._link, hello = link, link.hello
        self._engine = ProcessIdentity.of(hello["engine_pid"])
        self._adopted = None if self._keeper else ProcessIdentity.of(hello["keeper_pid"])
        self._snapshot = dataclasses.replace(
            self._snapshot,
            state=ReplicaState.STARTING,
            keeper_pid=hello["keeper_pid"],
            engine_pid=hello["engine_pid"] or None,
            started_at=hello["started_at"],
        )
        if hello["exit"]:
            self._inbox.put_nowait(exit_from(hello["exit"]))

    async def _follow(self) -> Exit | None:
        """Until the engine has ended, or None once it is somebody else's."""
        assert self._link is not None
        self._tasks.append(asyncio.create_task(self._listen(self._link)))
        if not self._ready.done():
            self._tasks.append(asyncio.create_task(self._watch_health()))
        while True:
            told = await self._inbox.get()
            match told:
                case Exit():
                    return told
                case _Told.DETACH | _Told.REPLACED:
                    return None
                case _Told.HEALTHY if self.state is ReplicaState.STARTING:
                    self._become_ready()
                case _Told.STOP:
                    self._begin_stop()
                case _Told.TIMED_OUT if self.state is ReplicaState.STARTING:
                    self._problem = self._start_timeout()
                    self._begin_stop()
                case _Told.LOST | _Told.OVERDUE:
                    return await self._end_without_keeper(told)

    def _become_ready(self) -> None:
        self._snapshot = dataclasses.replace(self._snapshot, state=ReplicaState.READY)
        self._ready.set_result(None)

    def _begin_stop(self) -> None:
        if self.state is ReplicaState.STOPPING:
            return
        assert self._link is not None
        if self.state is ReplicaState.STARTING and self._problem is None:
            self._problem = Problem("engine_stopped", 409, "The engine was stopped while it was starting.")
        self._snapshot = dataclasses.replace(self._snapshot, state=ReplicaState.STOPPING)
        self._link.stop_engine()
        overdue = self._settings.stop_seconds + _OVERDUE_SECONDS
        asyncio.get_running_loop().call_later(overdue, self._inbox.put_nowait, _Told.OVERDUE)

    async def _end_without_keeper(self, told: _Told) -> Exit:
        """The keeper was killed, or hangs: do its work from here."""
        await asyncio.to_thread(end_leftovers, self._socket_path, self._engine)
        ran = time.time() - (self._snapshot.started_at or time.time())
        reason = "was gone" if told is _Told.LOST else "did not end it in time"
        note = f"The engine's keeper {reason}; the engine was killed."
        words = self._keeper.last_words() if self._keeper else ()
        tail = (*read_tail(self._snapshot.log_path), *words, note)[-TAIL_LINES:]
        return Exit(None, "SIGKILL", tail, ran, asked_for=self.state is ReplicaState.STOPPING)

    async def _finish(self, exit: Exit) -> None:
        """Let the keeper leave, then tell everybody."""
        if self._link:
            self._link.say_goodbye()
        if not await self._keeper_left():
            await asyncio.to_thread(end_leftovers, self._socket_path, self._engine)
            await self._keeper_left()
        problem = self._problem or self._death(exit)
        self._snapshot = dataclasses.replace(self._snapshot, state=ReplicaState.EXITED, exit=exit)
        self._exited.set_result(exit)
        if not self._ready.done():
            tail = problem.log_tail or exit.log_tail
            self._ready.set_exception(
                Problem(
                    problem.code, problem.status, problem.cause, stage=problem.stage, hint=problem.hint, log_tail=tail
                )
            )

    async def _keeper_left(self) -> bool:
        """Wait for the keeper's end; only then is its socket gone too. It is our child unless it was adopted."""
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while self._keeper.runs() if self._keeper else self._adopted and self._adopted.alive():
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    def _abandon(self) -> None:
        """Our loop ends. A ready engine waits for the next server; one that nobody has seen ready does not."""
        if self.state in (ReplicaState.READY, ReplicaState.EXITED):
            return
        if self._keeper:
            self._keeper.terminate()
        elif self._snapshot.keeper_pid and self.state is ReplicaState.STOPPING:
            os.kill(self._snapshot.keeper_pid, signal.SIGTERM)

    def _give_up_waiting(self) -> None:
        gone = Problem("engine_detached", 503, "The engine was handed to another server.")
        for result in (self._ready, self._exited):
            if not result.done():
                result.set_exception(gone)

    # -- its two helpers, which only tell it things

    async def _listen(self, link: KeeperLink) -> None:
        async for message in link.messages():
            match message.get("event"):
                case "exited":
                    self._inbox.put_nowait(exit_from(message))
                case "replaced":
                    self._inbox.put_nowait(_Told.REPLACED)
        self._inbox.put_nowait(_Told.LOST)

    async def _watch_health(self) -> None:
        """Look every 50 ms at first, every 500 ms later, until the start deadline."""
        left = self._settings.start_seconds
        if self._keeper is None and self._snapshot.started_at is not None:
            left = max(_ADOPTED_START_SECONDS, left - (time.time() - self._snapshot.started_at))
        pause = 0.05
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left), aiohttp.ClientSession() as session:
                while (seen := await look(self._endpoint, session)) is not Look.HEALTHY:
                    self._answered |= seen is Look.LOADING
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.03, 0.5)
                self._inbox.put_nowait(_Told.HEALTHY)
                return
        self._inbox.put_nowait(_Told.TIMED_OUT)

    # -- what went wrong, in words

    def _start_timeout(self) -> Problem:
        seen = "did not report health" if self._answered else "did not open its port"
        return Problem(
            "engine_start_timeout",
            503,
            f"The engine {seen} within {self._settings.start_seconds:g} seconds.",
            stage="health",
            hint="Give it longer with XINFERENCE_START_SECONDS.",
        )

    def _death(self, exit: Exit) -> Problem:
        stage = "health" if self._answered else "start"
        return Problem("engine_died", 503, f"The engine {exit.reason} before it was ready.", stage=stage)
