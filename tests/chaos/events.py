"""What a chaos run does to a server: faults as a machine has them, beside the requests of clients."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.chaos.clients import Broken, Clients
from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.support.small_disk import SmallDisk


class Chaos(Clients):
    """One run: a home, its server, and what its clients have been promised."""

    def __init__(self, home: ScriptedHome, disk: SmallDisk | None, clock: Path, seed: int) -> None:
        super().__init__(home, seed)
        self.home = home
        self.disk = disk
        self.clock = clock
        self.trail: list[str] = []
        #: A second server would wait for the home of the first one, and own it after a later stop.
        self._one_server = threading.Lock()

    def step(self) -> None:
        """Do one random thing, sometimes two at once, and let the server settle."""
        chosen = self.random.choices([event for event, _ in EVENTS], [weight for _, weight in EVENTS], k=2)
        if self.random.random() < 0.4:
            first, second = chosen
            self.trail.append(f"{first.__name__} + {second.__name__}")
            doing = self._pool.submit(first, self)
            second(self)
            doing.result()
        else:
            self.trail.append(chosen[0].__name__)
            chosen[0](self)

    # -- faults -----------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        with self._one_server:
            self.home.kill()
            self.home.start()

    def terminate_server(self) -> None:
        with self._one_server:
            server = self.home.server
            assert server is not None
            server.terminate()
            server.wait(60)
            self.home.start()

    def kill_one(self) -> None:
        """Kill a keeper or an engine."""
        if victim := self._victim():
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def stop_one(self) -> None:
        """Let a keeper or an engine hang for a while."""
        if victim := self._victim():
            self._suspend(victim)

    def stop_server(self) -> None:
        """Let the server hang for a while."""
        if self.home.server is not None:
            self._suspend(self.home.server.pid)

    def kill_gateway(self) -> None:
        """Kill or suspend one of the processes that serve clients, if there are such."""
        gateways = []
        with contextlib.suppress(psutil.Error):
            assert self.home.server is not None
            for process in psutil.Process(self.home.server.pid).children():
                with contextlib.suppress(psutil.Error):
                    if any("gateway.workers" in word for word in process.cmdline()):
                        gateways.append(process.pid)
        if not gateways:
            return
        victim = self.random.choice(gateways)
        if self.random.random() < 0.5:
            self._suspend(victim)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)

    def fill_disk(self) -> None:
        if self.disk is None:
            return
        freed = threading.Event()
        self.disk_fills.append(freed)
        self.disk.fill()
        self._later(lambda: self._free(freed))

    def _free(self, freed: threading.Event) -> None:
        assert self.disk is not None
        self.disk.free()
        freed.set()

    def lock_store(self) -> None:
        def hold() -> None:
            with contextlib.suppress(Exception), self.home.locked_store():
                time.sleep(seconds)

        seconds = self.random.uniform(0.2, 2)
        holding = threading.Thread(target=hold)
        holding.start()
        self.random.choice((self.launch, self.chat, self.terminate, self.kill_one))()
        holding.join()

    def set_clock(self) -> None:
        self.clock.write_text(str(self.random.choice((-3600, 0, 3600, -86400 * 365))))

    def sweep(self) -> None:
        """Delete the lock files that an administrator might take for leftovers."""
        # Another event may delete folders meanwhile: `os.walk` goes on without them.
        for folder, _, names in os.walk(self.home.path):
            if "server.lock" in names:
                Path(folder, "server.lock").unlink(missing_ok=True)

    def clean_sockets_up(self) -> None:
        """Delete the folder of the sockets under the running server, as a system cleans a temporary folder up."""
        shutil.rmtree(self.home.path / "run", ignore_errors=True)

    def lose_sockets(self) -> None:
        """Clean the folder of the sockets up, and kill the server: engines cannot be adopted any more."""
        shutil.rmtree(self.home.path / "run", ignore_errors=True)
        self.kill_server()

    def _victim(self) -> int | None:
        processes = [process.pid for process in self.home.engines()]
        for process in list(processes):
            with contextlib.suppress(psutil.Error):
                processes.append(psutil.Process(process).ppid())
        return self.random.choice(processes) if processes else None

    def _suspend(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(self.random.uniform(0.1, 2))
            finally:
                os.kill(pid, signal.SIGCONT)

    def _later(self, action: Callable[[], None]) -> None:
        """Do something else, then `action`."""
        try:
            self.random.choice((self.launch, self.chat, self.terminate, self.kill_one, self.read))()
        finally:
            action()

    # -- invariants -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait until the server has settled, and compare it with what was promised and with what runs.

        Raises:
            Broken: an invariant does not hold, with the events that led to it.
        """
        try:
            until("the server answers", self.home.answers, 60)
            until("models have settled", self.settled, 90)
            until("every engine has an owner", self._no_stranger, 60)
            self.compare_promises()
        except AssertionError as error:
            raise Broken(f"{error}\nafter: {'; '.join(self.trail[-20:])}\n{self._state()}") from None

    def stop(self) -> None:
        """Stop the server by its command; every process of the home ends.

        Raises:
            Broken: a process is left, with what it is and the last lines of the server's log.
        """
        stopped = self.home.cli("stop")
        try:
            assert stopped.returncode == 0, stopped.stderr
            until("nothing is left", self.home.nothing_left, 60)
        except AssertionError as error:
            left = [process.as_dict(["pid", "ppid", "status", "cmdline"]) for process in self.home.processes()]
            log = (self.home.weights.parent / "server.log").read_text(errors="replace")[-4000:]
            raise Broken(f"{error}\nleft: {left}\nafter: {'; '.join(self.trail[-20:])}\n{log}") from None

    def _no_stranger(self) -> bool:
        """The engines that run are exactly those that the server lists."""
        return self.listed_pids() == {process.pid for process in self.home.engines()}

    def _state(self) -> str:
        entries = {uid: (entry["status"], entry["replicas"]) for uid, entry in self.instances().items()}
        return f"{entries}\nengines: {[process.pid for process in self.home.engines()]}"


#: The events, with how often each happens in relation to the others.
EVENTS: tuple[tuple[Callable[[Chaos], None], int], ...] = (
    (Chaos.launch, 10),
    (Chaos.terminate, 5),
    (Chaos.change_replicas, 4),
    (Chaos.chat, 6),
    (Chaos.stream, 5),
    (Chaos.read, 2),
    (Chaos.kill_server, 3),
    (Chaos.terminate_server, 2),
    (Chaos.kill_one, 4),
    (Chaos.stop_one, 2),
    (Chaos.stop_server, 1),
    (Chaos.kill_gateway, 3),
    (Chaos.fill_disk, 2),
    (Chaos.lock_store, 3),
    (Chaos.set_clock, 1),
    (Chaos.sweep, 1),
    (Chaos.clean_sockets_up, 1),
    (Chaos.lose_sockets, 1),
)
