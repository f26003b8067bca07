"""The keeper: the small parent process of exactly one engine. containerd calls such a process a shim.

``python -m xinference.process.keeper`` reads a `Spec` as JSON from standard input, starts the engine, and waits at a
Unix socket for its owner, the server. After the death of the server, the engine runs for `grace_seconds`; a new server
that connects in this time adopts it. In every case the engine's whole process tree ends with the keeper.

Protocol, one JSON object a line. To the owner: ``hello`` (at once), ``exited`` (the engine and all its descendants have
ended), ``replaced`` (another owner connected). From the owner: ``{"op": "stop"}``, and ``{"op": "limit_memory",
"bytes": 0}``, which replaces the ceiling of the engine's memory.

The keeper ends an engine whose memory exceeds its ceiling, also while no server runs.

Standard library only, one thread, no asyncio: there is one keeper for each engine, so its memory counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.process.logs import BoundedLog
from xinference.process.memory import raise_oom_score
from xinference.process.memory_watch import MemoryWatch, OomWatch
from xinference.process.owner import Owner
from xinference.process.scratch import make_scratch, remove_scratch
from xinference.process.tree import (
    become_subreaper,
    descendants,
    die_with_parent,
    frees_shared_memory,
    kill,
    signal_name,
)

#: Time for the engine's children to exit after the engine, in seconds. Python's multiprocessing has helper processes
#: that free shared memory in this time; if killed at once, they would leak it.
LINGER_SECONDS = 0.5
#: Maximum time to wait for the owner to disconnect after the exit was reported, in seconds.
ACKNOWLEDGE_SECONDS = 5.0
_TICK = 0.02
_NOT_STARTED = 127  # the shell's status for a program that cannot be run


@dataclass(frozen=True)
class Spec:
    """The input of a keeper; times in seconds."""

    argv: list[str]
    env: Mapping[str, str]
    """Added to the keeper's own environment."""
    cwd: str | None
    log_path: str
    log_bytes: int
    socket_path: str
    grace_seconds: float
    stop_seconds: float
    context: Any
    """Stored for an owner that connects, never read."""
    memory_ceiling: int = 0
    """Bytes of memory at which the engine is ended; 0: no ceiling."""


class Keeper:
    """The lifecycle of one engine. `run` has the steps in order; every other method is one step."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._selector = selectors.DefaultSelector()
        self._log = BoundedLog(Path(spec.log_path), spec.log_bytes)
        self._owner: Owner | None = None
        self._alone_since = time.monotonic()
        self._started = time.monotonic()
        self._started_at = time.time()
        self._engine_pid = 0
        self._status: int | None = None  # of the engine's main process, as waitpid returns it
        self._ended_at = 0.0  # when this was detected
        self._exit: dict[str, Any] | None = None  # set when the whole process tree has ended
        self._stop_requested = False
        self._kill_at: float | None = None
        self._reported_at: float | None = None
        self._terminating = False
        self._memory = MemoryWatch(spec.memory_ceiling, self._remaining)
        self._excess: int | None = None  # bytes in use when the engine was ended for its memory
        self._oom = OomWatch()

    def run(self) -> None:
        """Supervise the engine until its exit is reported to the owner, or the grace period has passed without one."""
        self._catch_signals()
        listener = self._listen()
        try:
            self._start_engine()
            while not self._finished():
                for key, events in self._selector.select(self._timeout()):
                    self._handle(key, events)
                self._reap()
                self._advance()
        finally:
            for target in self._remaining():
                kill(target, signal.SIGKILL)
            remove_scratch(Path(self._spec.socket_path))
            self._remove_socket()
            listener.close()
            self._log.close()

    # -- start ----------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        # Handlers, not SIG_IGN: an ignored signal would stay ignored in the engine.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
        self._wakeup = (wake, woken)
        self._selector.register(wake, selectors.EVENT_READ, wake)

    def _on_sigterm(self, *_: object) -> None:
        self._terminating = True

    def _listen(self) -> socket.socket:
        path = Path(self._spec.socket_path)
        # The last keeper of another server deletes the folder.
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.lstat().st_uid != os.geteuid():
            raise PermissionError(f"{path.parent} is a folder of another user")
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o077)
        listener.bind(os.fspath(path))
        os.umask(previous)
        listener.listen(4)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, listener)
        return listener

    def _remove_socket(self) -> None:
        """Remove the socket, and its folder if no server and no other keeper uses it."""
        path = Path(self._spec.socket_path)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def _scratch_env(self) -> dict[str, str]:
        """The variable with the engine's own temporary folder; the keeper holds the folder's lock until it ends."""
        made = make_scratch(Path(self._spec.socket_path))
        return {} if made is None else {"TMPDIR": os.fspath(made[0])}

    def _start_engine(self) -> None:
        become_subreaper()
        spec, parent = self._spec, os.getpid()
        output, engine_output = os.pipe()
        os.set_blocking(output, False)
        try:
            engine = subprocess.Popen(
                spec.argv,
                env={**os.environ, **self._scratch_env(), **spec.env},
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=engine_output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: _prepare_child(parent),
            )
        except OSError as error:
            self._log.feed(f"The engine could not be started: {error}\n".encode())
            self._status, self._ended_at = _NOT_STARTED << 8, time.monotonic()
        else:
            self._engine_pid = engine.pid
            engine.returncode = 0  # `_reap` waits for it
        finally:
            os.close(engine_output)
        self._output = output
        self._selector.register(output, selectors.EVENT_READ, output)

    # -- input ----------------------------------------------------------------------------------------------

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if isinstance(key.data, Owner):
            if key.data is self._owner:
                self._serve(self._owner, events)
        elif key.fileobj == self._output:
            self._read_output()
        elif key.fileobj is self._wakeup[0]:
            with contextlib.suppress(BlockingIOError):
                self._wakeup[0].recv(4096)
        else:
            self._accept(key.data)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if self._owner:
            self._owner.send({"event": "replaced"})
            self._owner.close()
        self._owner = Owner(connection, self._selector)
        self._owner.send(
            {
                "event": "hello",
                "keeper_pid": os.getpid(),
                "engine_pid": self._engine_pid,
                "started_at": self._started_at,
                "age_seconds": time.monotonic() - self._started,
                "context": self._spec.context,
                "state": "exited" if self._exit else "running",
                "exit": self._exit,
            }
        )
        self._reported_at = time.monotonic() if self._exit else None

    def _serve(self, owner: Owner, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            owner.flush()
        if events & selectors.EVENT_READ:
            requests = owner.receive()
            if requests is None:
                owner.close()
                self._owner, self._alone_since = None, time.monotonic()
            for request in requests or ():
                self._obey(request)

    def _obey(self, request: Mapping[str, Any]) -> None:
        if request["op"] == "stop":
            self._stop()
        elif request["op"] == "limit_memory":
            self._memory.ceiling = int(request["bytes"])

    def _read_output(self) -> bool:
        """Log the engine's output; False if there is none now."""
        if self._output < 0:
            return False
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(self._output)
            os.close(self._output)
            self._output = -1
        self._log.feed(data)
        return bool(data)

    # -- ending the engine ----------------------------------------------------------------------------------
    #
    # 1. SIGTERM to the engine's process group: it can finish its requests, free shared memory and device memory.
    # 2. Wait up to stop_seconds and continue to read its output: a full pipe would prevent its exit.
    # 3. SIGKILL to every descendant: an engine that hangs in a driver call or ignores SIGTERM must not keep the device.
    #    Python's helpers that free shared memory are left: they do so when the others have ended, and end then.
    # 4. When its main process has ended, for any reason, its children get LINGER_SECONDS, and the helpers twice that.
    # 5. SIGKILL to every descendant, repeated until none runs: a process that was forked during a scan is found by the
    #    next one. As the subreaper, the keeper inherits all orphans.
    # 6. Reap all, read the last output, delete the temporary folder, report to the owner. Only now all memory is free.

    def _stop(self) -> None:
        if self._status is None and not self._stop_requested:
            self._stop_requested = True
            kill(-self._engine_pid, signal.SIGTERM)
            self._kill_at = time.monotonic() + self._spec.stop_seconds

    def _kill_for_memory(self, used: int) -> None:
        """End the engine without a grace period, in which it would go on taking memory."""
        self._excess = used
        self._kill_engine()

    def _kill_engine(self) -> None:
        """SIGKILL every process of the engine, except the helpers that free its shared memory after that."""
        for target in self._remaining():
            if not frees_shared_memory(target):
                kill(target, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (waited := os.waitpid(-1, os.WNOHANG))[0]:
                if waited[0] == self._engine_pid and self._status is None:
                    self._status, self._ended_at = waited[1], time.monotonic()

    def _advance(self) -> None:
        now = time.monotonic()
        if self._exit is not None:
            return
        if self._owner is None and now - self._alone_since >= self._spec.grace_seconds:
            self._terminating = True
        if self._terminating:
            self._stop()
        if self._status is None:
            self._oom.refresh(now)
            if self._engine_pid and (used := self._memory.excess(now)) is not None:
                self._kill_for_memory(used)
            if self._kill_at is not None and now >= self._kill_at:
                self._kill_engine()
                self._kill_at = now + 1.0
        elif not (remaining := self._remaining()):
            self._report()
        elif now - self._ended_at >= 2 * LINGER_SECONDS:
            for target in remaining:
                kill(target, signal.SIGKILL)
        elif now - self._ended_at >= LINGER_SECONDS:
            self._kill_engine()

    def _remaining(self) -> list[int]:
        return descendants(self._engine_pid) if self._engine_pid else []

    def _report(self) -> None:
        while self._read_output():
            pass
        assert self._status is not None
        remove_scratch(Path(self._spec.socket_path))
        code = os.waitstatus_to_exitcode(self._status)
        killed = code == -signal.SIGKILL and not self._stop_requested and self._excess is None
        self._exit = {
            "code": code if code >= 0 else None,
            "signal": signal_name(-code) if code < 0 else None,
            "log_tail": self._log.tail(),
            "ran_seconds": self._ended_at - self._started,
            "asked_for": self._stop_requested,
            "memory_excess": self._excess,
            "memory_ceiling": self._memory.ceiling,
            "oom_killed": killed and self._oom.has_risen(),
        }
        if self._owner:
            self._owner.send({"event": "exited", **self._exit})
            self._reported_at = time.monotonic()

    # -- end of the keeper ----------------------------------------------------------------------------------

    def _finished(self) -> bool:
        if self._exit is None:
            return False
        now = time.monotonic()
        if self._owner:
            return self._reported_at is not None and now - self._reported_at >= ACKNOWLEDGE_SECONDS
        return self._terminating or self._reported_at is not None or now - self._alone_since >= self._spec.grace_seconds

    def _timeout(self) -> float | None:
        """Seconds until the next action that no event triggers."""
        now = time.monotonic()
        if self._status is not None and self._exit is None:
            return _TICK
        due = [self._kill_at] if self._exit is None and self._kill_at is not None else []
        if self._exit is None and (pause := self._memory.seconds_to_sample(now)) is not None:
            due.append(now + pause)
        if self._owner is None:
            due.append(self._alone_since + self._spec.grace_seconds)
        elif self._reported_at is not None:
            due.append(self._reported_at + ACKNOWLEDGE_SECONDS)
        return max(0.0, min(due) - now) if due else None


def _prepare_child(parent: int) -> None:
    die_with_parent(parent)
    raise_oom_score()


def main() -> None:
    """Read the spec and supervise its engine."""
    Keeper(Spec(**json.load(sys.stdin))).run()


if __name__ == "__main__":
    main()
