"""The server's object for one engine process: five states, one owner task."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem, defect
from xinference.process.command import EngineCommand, Exit, Fault
from xinference.process.engine_watch import NO_GUARD, Guard, StartWatch, wait_until_hung
from xinference.process.leftovers import end_leftovers
from xinference.process.link import KeeperLink, keeper_spec, ports, private_run_dir
from xinference.process.logs import TAIL_LINES, read_tail
from xinference.process.probe import Endpoint, ProbeResult, probe
from xinference.process.probe_session import probe_session
from xinference.process.replica_processes import ReplicaProcesses
from xinference.process.replica_results import ReplicaResults
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState, exit_from, new_snapshot

log = logging.getLogger(__name__)

#: Maximum time for an answer of an earlier server's keeper. A machine that swaps or stalls lets it hang, and to give up
#: one that lives costs its loaded model.
_ADOPT_SECONDS = 20.0
#: Maximum time for the first answer of an adopted engine.
_ADOPTED_PROBE_SECONDS = 3.0
#: Time beyond `stop_seconds` after which a keeper that reports nothing is killed with all its descendants.
_OVERDUE_SECONDS = 5.0
#: Minimum time for an adopted engine to answer, regardless of its start time.
_ADOPTED_START_SECONDS = 10.0


class _OwnerMessage(enum.Enum):
    """Messages to the owner task; a further one is the engine's `Exit`."""

    STOP = enum.auto()
    DETACH = enum.auto()
    HEALTHY = enum.auto()
    TIMED_OUT = enum.auto()
    REPLACED = enum.auto()
    LOST = enum.auto()
    OVERDUE = enum.auto()


@dataclasses.dataclass(frozen=True)
class _Hung:
    """Message to the owner task: the engine hangs; `detail` is that of `Exit`."""

    detail: str


class Replica:
    """An engine process and its keeper, owned by one asyncio task.

    Create one with `start` or `adopt`. Public methods send the owner a request or wait for its result; only the owner
    changes state. `snapshot` may be read at any time.
    """

    def __init__(
        self,
        snapshot: ReplicaSnapshot,
        endpoint: Endpoint,
        settings: Settings,
        socket_path: Path,
        changed: Callable[[], None],
        guard: Guard,
    ) -> None:
        self._guard = guard
        self._snapshot = snapshot
        self._changed = changed
        self._endpoint = endpoint
        self._settings = settings
        self._processes = ReplicaProcesses(socket_path)
        self._inbox: asyncio.Queue[_OwnerMessage | _Hung | Exit] = asyncio.Queue()
        self._results = ReplicaResults()
        self._start_watch = StartWatch(endpoint)
        self._problem: Problem | None = None
        self._hung: _Hung | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._owner: asyncio.Task[None] | None = None

    # -- creation -------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        replica_id: str,
        command: EngineCommand,
        settings: Settings,
        *,
        log_path: Path,
        changed: Callable[[], None] = lambda: None,
        guard: Guard = NO_GUARD,
    ) -> Replica:
        """Begin to start an engine on a free loopback port; `wait_ready` reports the result.

        `changed` is called after each new snapshot.

        Raises:
            Problem: 500, the folder for sockets is not safe.
        """
        socket_path = private_run_dir(settings) / f"{replica_id}.sock"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        endpoint = Endpoint(
            ports.take(),
            command.api_key,
            command.health_path,
            command.models_path,
            command.model_name,
            command.answers,
        )
        snapshot = new_snapshot(replica_id, endpoint, command.context, log_path)
        replica = cls(snapshot, endpoint, settings, socket_path, changed, guard)
        spec = keeper_spec(command, endpoint, settings, socket_path, log_path, guard.starting_ceiling)
        replica._owner = asyncio.create_task(replica._own(spec), name=f"replica {replica_id}")
        return replica

    @classmethod
    async def adopt(
        cls,
        replica_id: str,
        settings: Settings,
        guard: Callable[[Mapping[str, Any]], Guard] = lambda context: NO_GUARD,
    ) -> Replica | None:
        """Adopt an engine that an earlier server started; see `report_to`.

        `guard` makes the engine's limits from the context of its command.

        It is READY if it answers now, STARTING if it does not yet, EXITED if it has ended meanwhile. None if no keeper
        answers; in that case the processes that the keeper left have been ended. That includes a keeper whose socket
        was deleted: its engine would hold memory and devices beside the one that is started in its place.
        """
        socket_path = private_run_dir(settings) / f"{replica_id}.sock"
        if not socket_path.exists():
            await asyncio.to_thread(end_leftovers, socket_path, None)
            return None
        try:
            link = await KeeperLink.open(socket_path, _ADOPT_SECONDS)
        except OSError:
            await asyncio.to_thread(end_leftovers, socket_path, None)
            return None
        try:
            return await cls._take_over(replica_id, settings, socket_path, link, guard)
        except (KeyError, TypeError):  # a keeper of another version, whose context cannot be read
            link.close()
            await asyncio.to_thread(end_leftovers, socket_path, None)
            return None
        except BaseException:
            link.close()
            raise

    @classmethod
    async def _take_over(
        cls,
        replica_id: str,
        settings: Settings,
        socket_path: Path,
        link: KeeperLink,
        guard: Callable[[Mapping[str, Any]], Guard],
    ) -> Replica:
        stored, running = link.hello["context"], link.hello["state"] == "running"
        endpoint = Endpoint(**stored["endpoint"])
        snapshot = new_snapshot(replica_id, endpoint, stored["context"], Path(stored["log_path"]))
        replica = cls(snapshot, endpoint, settings, socket_path, lambda: None, guard(stored["context"]))
        replica._show_start(replica._processes.adopt(link))
        ports.hold(endpoint.port)
        if running:
            async with probe_session() as session:
                if await probe(endpoint, session, _ADOPTED_PROBE_SECONDS) is ProbeResult.HEALTHY:
                    replica._become_ready()
        replica._owner = asyncio.create_task(replica._own(None), name=f"replica {replica_id}")
        if not running:
            await replica.wait_exited()
        return replica

    def report_to(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each new snapshot from now on."""
        self._changed = changed

    # -- requests -------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> ReplicaSnapshot:
        """The current snapshot."""
        return self._snapshot

    @property
    def state(self) -> ReplicaState:
        """The same as ``snapshot.state``."""
        return self._snapshot.state

    async def wait_ready(self) -> None:
        """Wait until the engine answers. Cancellation before that ends the engine.

        Raises:
            Problem: 503 ``engine_start_timeout``, ``engine_died`` or ``keeper_failed``, with the engine's last lines;
                409 ``engine_stopped``; 503 ``engine_detached``.
        """
        await self._results.wait_ready(self.stop)

    async def wait_exited(self) -> Exit:
        """Wait until the engine and all its descendants have ended.

        Raises:
            Problem: 503 ``engine_detached``: this server will not be notified.
        """
        return await self._results.wait_exited()

    async def stop(self) -> Exit | None:
        """Stop the engine, also while it is starting, and wait for its exit; None if it was detached before."""
        self._inbox.put_nowait(_OwnerMessage.STOP)
        return await self._results.wait_stopped()

    async def detach(self) -> None:
        """Disconnect; the engine runs on for its grace period, for a later `adopt`."""
        self._inbox.put_nowait(_OwnerMessage.DETACH)
        if self._owner:
            await asyncio.wait({self._owner})

    # -- owner task -----------------------------------------------------------------------------------------

    async def _own(self, spec: Mapping[str, Any] | None) -> None:
        """The lifecycle: open, handle messages, finish. Only this task changes state."""
        try:
            if spec is not None:
                self._show_start(await self._processes.start(spec))
            if (exit := await self._follow()) is not None:
                await self._finish(exit)
        except Problem as problem:  # no keeper, so no engine
            self._problem = problem
            await self._processes.end()
            await self._finish(Exit(None, "SIGKILL", problem.log_tail, 0.0))
        except asyncio.CancelledError:
            self._abandon()
            raise
        except Exception as error:
            # A defect of xinference must not leave an engine that no task owns.
            log.exception("replica %s", self._snapshot.replica_id)
            self._problem = defect(error).at("start")
            await self._processes.end()
            if not self._results.is_over:
                await self._finish(Exit(None, "SIGKILL", (), 0.0))
        finally:
            for task in self._tasks:
                task.cancel()
            self._processes.release()
            ports.release(self._endpoint.port)
            self._results.detach()

    def _show_start(self, link: KeeperLink) -> None:
        """Show what the keeper's first message says of the engine."""
        hello = link.hello
        self._show(
            state=ReplicaState.STARTING,
            keeper_pid=hello["keeper_pid"],
            engine_pid=hello["engine_pid"] or None,
            started_at=hello["started_at"],
        )
        if hello["exit"]:
            self._inbox.put_nowait(exit_from(hello["exit"]))

    async def _follow(self) -> Exit | None:
        """Handle messages until the engine has exited; None: another server owns it now."""
        assert self._processes.link is not None
        self._tasks.append(asyncio.create_task(self._listen(self._processes.link)))
        if not self._results.is_started:
            self._tasks.append(asyncio.create_task(self._watch_health()))
        elif self.state is ReplicaState.READY:
            self._begin_watch()
        while True:
            message = await self._inbox.get()
            match message:
                case Exit():
                    return self._explained(message)
                case _Hung() if self.state is ReplicaState.READY:
                    self._kill(message)
                case _OwnerMessage.DETACH | _OwnerMessage.REPLACED:
                    return None
                case _OwnerMessage.HEALTHY if self.state is ReplicaState.STARTING:
                    self._become_ready()
                    self._begin_watch()
                case _OwnerMessage.STOP:
                    self._begin_stop()
                case _OwnerMessage.TIMED_OUT if self.state is ReplicaState.STARTING:
                    self._problem = self._start_watch.timeout_problem(self._settings.start_seconds)
                    self._begin_stop()
                case _OwnerMessage.LOST | _OwnerMessage.OVERDUE:
                    return await self._end_without_keeper(message)

    def _show(self, **changes: Any) -> None:
        self._snapshot = dataclasses.replace(self._snapshot, **changes)
        self._changed()

    def _become_ready(self) -> None:
        self._show(state=ReplicaState.READY)
        self._results.set_ready()

    def _begin_stop(self) -> None:
        if self.state is ReplicaState.STOPPING:
            return
        assert self._processes.link is not None
        if self.state is ReplicaState.STARTING and self._problem is None:
            self._problem = Problem(Code.ENGINE_STOPPED, "The engine was stopped while it was starting.")
        self._show(state=ReplicaState.STOPPING)
        self._processes.link.stop_engine()
        overdue = self._settings.stop_seconds + _OVERDUE_SECONDS
        asyncio.get_running_loop().call_later(overdue, self._inbox.put_nowait, _OwnerMessage.OVERDUE)

    def _begin_watch(self) -> None:
        """Watch the ready engine: its keeper watches its memory, a task its progress."""
        assert self._processes.link is not None
        self._processes.link.limit_memory(self._guard.ceiling)
        self._tasks.append(asyncio.create_task(self._watch_progress()))

    def _kill(self, hung: _Hung) -> None:
        """Kill the engine: one that hangs would not use the time that a stop gives it."""
        self._hung = hung
        self._show(state=ReplicaState.STOPPING, fault=Fault.HUNG)
        self._processes.kill_engine()
        asyncio.get_running_loop().call_later(_OVERDUE_SECONDS, self._inbox.put_nowait, _OwnerMessage.OVERDUE)

    def _explained(self, exit: Exit) -> Exit:
        """The exit, with its fault if this server has killed the engine."""
        if self._hung is None:
            return exit
        return dataclasses.replace(exit, fault=Fault.HUNG, detail=self._hung.detail, requested=False)

    async def _end_without_keeper(self, message: _OwnerMessage) -> Exit:
        """Kill the processes of a keeper that was killed or hangs."""
        await self._processes.end()
        ran = self._processes.ran_seconds
        reason = "had ended" if message is _OwnerMessage.LOST else "did not end it in time"
        note = f"The engine's keeper {reason}; the engine was killed."
        tail = (*read_tail(self._snapshot.log_path), *self._processes.last_lines(), note)[-TAIL_LINES:]
        return self._explained(Exit(None, "SIGKILL", tail, ran, requested=self.state is ReplicaState.STOPPING))

    async def _finish(self, exit: Exit) -> None:
        """Acknowledge the exit, so that the keeper exits too; then set the results."""
        await self._processes.finish()
        problem = self._problem or self._start_watch.death_problem(exit)
        self._show(state=ReplicaState.EXITED, exit=exit)
        self._results.end(exit, problem.replace(log_tail=problem.log_tail or exit.log_tail))

    def _abandon(self) -> None:
        """Handle the end of the event loop: a ready engine runs on for the next server, any other one is stopped."""
        if self.state in (ReplicaState.READY, ReplicaState.EXITED):
            return
        is_terminated = self._processes.terminate_own_keeper()
        if not is_terminated and self._snapshot.keeper_pid and self.state is ReplicaState.STOPPING:
            os.kill(self._snapshot.keeper_pid, signal.SIGTERM)

    # -- helper tasks, which only send messages -------------------------------------------------------------

    async def _listen(self, link: KeeperLink) -> None:
        async for message in link.messages():
            match message.get("event"):
                case "exited":
                    self._inbox.put_nowait(exit_from(message))
                case "replaced":
                    self._inbox.put_nowait(_OwnerMessage.REPLACED)
        self._inbox.put_nowait(_OwnerMessage.LOST)

    async def _watch_health(self) -> None:
        remaining = self._settings.start_seconds
        if self._processes.is_adopted:
            remaining = max(_ADOPTED_START_SECONDS, remaining - self._processes.ran_seconds)
        is_healthy = await self._start_watch.becomes_healthy(remaining)
        self._inbox.put_nowait(_OwnerMessage.HEALTHY if is_healthy else _OwnerMessage.TIMED_OUT)

    async def _watch_progress(self) -> None:
        detail = await wait_until_hung(self._snapshot, self._endpoint, self._guard, self._settings)
        if detail is not None:
            self._inbox.put_nowait(_Hung(detail))
