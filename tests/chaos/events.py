"""What a chaos run does to a server: requests as a client sends them, and faults as a machine has them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from tests.support.polling import until
from tests.support.scripted_home import ScriptedHome
from tests.support.small_disk import SmallDisk

#: Scripts of the engines, by how they behave.
SCRIPTS: tuple[dict[str, Any], ...] = (
    {},
    {"ignore_sigterm": True},
    {"listen_delay": 0.5},
    {"health_delay": 0.5, "children": 1, "detached_children": 1},
    {"chunks": 40, "interval": 0.05},
)
UIDS = ("a", "b", "c", "d")
#: Answers that a client may get while faults happen. Any other status breaks an invariant.
EXPECTED = {200, 400, 404, 409, 429, 499, 502, 503, 507}


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass(eq=False)
class Change:
    """A request that changes a uid."""

    runs: bool | None = None
    """Whether the uid runs after it; None: no answer says so."""
    before: bool | None = None
    """Whether the uid was promised to run when the request began."""


class Chaos:
    """One run: a home, its server, and what its clients have been promised."""

    def __init__(self, home: ScriptedHome, disk: SmallDisk | None, clock: Path, seed: int) -> None:
        self.home = home
        self.disk = disk
        self.clock = clock
        self.random = random.Random(seed)
        self.promised: dict[str, bool | None] = dict.fromkeys(UIDS, False)
        """Whether each uid runs, by the last answer; None: no answer came, so either is right."""
        self.trail: list[str] = []
        self._changes: dict[str, list[Change]] = {uid: [] for uid in UIDS}
        self._mixed: set[str] = set()
        """The uids with several requests at one time."""
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(16)

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

    def close(self) -> None:
        self._pool.shutdown()

    # -- requests ---------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, **fields: Any) -> httpx2.Response | None:
        """Send a request; None: the connection failed, as it may while the server is killed.

        Raises:
            Broken: the answer is none that a client can expect.
        """
        try:
            answer = httpx2.request(method, f"{self.home.url}{path}", timeout=120, **fields)
        except httpx2.TransportError:
            return None
        if answer.status_code not in EXPECTED:
            raise Broken(f"{method} {path}: {answer.status_code} {answer.text}")
        if answer.status_code != 200:
            answer.json()  # an error is JSON, never bare text
            if "internal_error" in answer.text:
                raise Broken(f"{method} {path}: {answer.text}")
        return answer

    @contextlib.contextmanager
    def _changing(self, uid: str) -> Iterator[Change]:
        """Record what a request makes of a uid. Of two requests at one time, either may be the last one."""
        change = Change()
        with self._lock:
            self._changes[uid].append(change)
            if len(self._changes[uid]) > 1:
                self._mixed.add(uid)
            change.before, self.promised[uid] = self.promised[uid], None
        try:
            yield change
        finally:
            with self._lock:
                self._changes[uid].remove(change)
                self.promised[uid] = None if uid in self._mixed else change.runs
                if not self._changes[uid]:
                    self._mixed.discard(uid)

    def launch(self) -> None:
        uid, script = self.random.choice(UIDS), self.random.choice(SCRIPTS)
        wait_ready, replica = self.random.random() < 0.7, self.random.choice((1, 1, 2))
        body = self.home.request(uid, script=script, replica=replica)
        if self.random.random() < 0.2:
            body["on_demand"] = True
        with self._changing(uid) as change:
            answer = self.ask("POST", "/v1/models", json=body, params={"wait_ready": str(wait_ready).lower()})
            if answer is not None and answer.status_code == 200:
                change.runs = True
            elif answer is not None and answer.json()["problem"]["code"] == "model_uid_taken":
                change.runs = change.before  # after any other refusal, its row may be stored or not

    def terminate(self) -> None:
        uid = self.random.choice(UIDS)
        with self._changing(uid) as change:
            answer = self.ask("DELETE", f"/v1/models/{uid}")
            if answer is not None and answer.status_code in (200, 404):
                change.runs = False

    def change_replicas(self) -> None:
        uid = self.random.choice(UIDS)
        if self.random.random() < 0.5:
            self.ask("POST", f"/v1/models/{uid}/replicas", json={})
        else:
            self.ask("DELETE", f"/v1/models/{uid}/replicas/{self.random.choice((0, 1, 2))}")

    def chat(self) -> None:
        uid = self.random.choice(UIDS)
        body = {"model": uid, "messages": [{"role": "user", "content": "hello"}]}
        list(self._pool.map(lambda _: self.ask("POST", "/v1/chat/completions", json=body), range(4)))

    def stream(self) -> None:
        uid, patience = self.random.choice(UIDS), self.random.choice((1, 1000))
        body = {"model": uid, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        with (
            contextlib.suppress(httpx2.TransportError),
            httpx2.stream("POST", f"{self.home.url}/v1/chat/completions", json=body, timeout=120) as answer,
        ):
            for number, _ in enumerate(answer.iter_raw()):
                if number >= patience:
                    break

    def read(self) -> None:
        for path in ("/v1/models", "/v1/models/instances", "/metrics", "/health"):
            answer = self.ask("GET", path)
            if answer is not None and answer.status_code not in (200, 503):  # 503: its socket is being created again
                raise Broken(f"GET {path}: {answer.status_code} {answer.text}")

    # -- faults -----------------------------------------------------------------------------------------------

    def kill_server(self) -> None:
        self.home.kill()
        self.home.start()

    def terminate_server(self) -> None:
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
        self.disk.fill()
        self._later(self.disk.free)

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
            until("models have settled", self._settled, 90)
            until("every engine has an owner", self._no_stranger, 60)
            self._compare_promises()
        except AssertionError as error:
            raise Broken(f"{error}\nafter: {'; '.join(self.trail[-20:])}\n{self._state()}") from None

    def _instances(self) -> dict[str, dict[str, Any]]:
        answers: list[httpx2.Response] = []

        def look() -> bool:
            answer = self.ask("GET", "/v1/models/instances")
            if answer is not None and answer.status_code == 200:
                answers.append(answer)
            return bool(answers)

        until("models are listed", look, 30)
        return {entry["model_uid"]: entry for entry in answers[-1].json()}

    def _settled(self) -> bool:
        """No model is in between: each is ready, unloaded, or has failed with a reason."""
        for entry in self._instances().values():
            if entry["status"] == "ERROR":
                if not entry["problem"] or entry["problem"]["code"] == "internal_error":
                    raise Broken(f"{entry}")
            elif entry["status"] == "READY":
                if any(replica["status"] not in ("READY", "ERROR") for replica in entry["replicas"]):
                    return False
            elif entry["status"] != "UNLOADED":
                return False
        return True

    def _no_stranger(self) -> bool:
        """The engines that run are exactly those that the server lists."""
        listed = {
            replica["engine_pid"]
            for entry in self._instances().values()
            for replica in entry["replicas"]
            if replica["engine_pid"]
        }
        return listed == {process.pid for process in self.home.engines()}

    def _compare_promises(self) -> None:
        there = self._instances()
        for uid, promised in self.promised.items():
            if promised and uid not in there and self._never_ran(uid):
                continue
            if promised is not None and promised != (uid in there):
                raise Broken(f"{uid}: promised {promised}, is there {uid in there}")

    def _never_ran(self, uid: str) -> bool:
        """Whether the last launch of a uid has failed before its model was ready: it leaves the list by itself."""
        answer = self.ask("GET", "/v1/launch_history")
        records = [] if answer is None else [record for record in answer.json() if record["model_uid"] == uid]
        return bool(records) and records[0]["status"] == "failed" and records[0]["ready_at"] is None

    def _state(self) -> str:
        entries = {uid: (entry["status"], entry["replicas"]) for uid, entry in self._instances().items()}
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
