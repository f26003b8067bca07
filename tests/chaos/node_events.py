"""What a chaos run does to a cluster: faults of nodes, links and processes, beside launches and requests."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.clients import Broken, Clients
from tests.chaos.node_traffic import Faults, Traffic
from tests.support.cluster_processes import ClusterProcesses, WorkerHome
from tests.support.home import send_signal
from tests.support.network_hosts import plug_in, pull_cable
from tests.support.polling import until
from tests.support.scripted_home import scripted_engines, scripted_launch
from xinference.process.leftovers import KEEPER_VARIABLE

#: `XINFERENCE_NODE_LOST_SECONDS` of the run, and the lengths of a loss: 3, 20 and 60 s where it is 30 s.
LOST_SECONDS = 6.0
LENGTHS = tuple(seconds * LOST_SECONDS / 30 for seconds in (3, 20, 60))
#: A run begins with so many launches.
FIRST_LAUNCHES = 3
#: Scripts of the engines: most answers take two seconds, so that a loss meets some.
LONG = {"chunks": 40, "interval": 0.05}
SCRIPTS: tuple[dict[str, Any], ...] = (
    {},
    LONG,
    LONG | {"ignore_sigterm": True},
    LONG | {"health_delay": 0.5, "children": 1, "detached_children": 1},
)
#: The longest time for the cluster to settle, in seconds.
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, order=True)
class Running:
    """An engine process, found by a scan or in a list."""

    node: str
    replica: str
    pid: int


@dataclass
class ScriptedCluster:
    """The supervisor as the clients see it."""

    cluster: ClusterProcesses
    weights: Path

    @property
    def url(self) -> str:
        return self.cluster.home.url

    def request(self, uid: str, **fields: Any) -> dict[str, Any]:
        return scripted_launch(self.weights, uid, **fields)


class NodeChaos(Clients):
    """One run over a supervisor and its workers."""

    def __init__(self, cluster: ClusterProcesses, weights: Path, seed: int) -> None:
        super().__init__(ScriptedCluster(cluster, weights), seed, SCRIPTS)
        self.cluster = cluster
        self.faults = Faults()
        self.traffic = Traffic(cluster.home.url, self.faults)
        self.trail: list[str] = []
        self._counts: dict[str, int] = {}
        """Uid -> number of its replicas at the last check."""
        self._before: dict[Running, str] = {}
        """The engines at the last check, with the uid of each."""
        self._killed: set[int] = set()
        """The processes that a fault of this step has killed."""
        self._faulty: set[str] = set()
        """The nodes with a fault in this step: they may be LOST."""
        self._log_read = 0

    def step(self) -> None:
        """Do one random thing while requests go on, and check all invariants.

        Raises:
            Broken: an invariant does not hold, with the events that led to it.
        """
        (event,) = self.random.choices([event for event, _ in EVENTS], [weight for _, weight in EVENTS])
        if len(self.trail) < FIRST_LAUNCHES:
            event = NodeChaos.launch
        self.trail.append(event.__name__)
        self._killed, self._faulty = set(), set()
        self.traffic.begin()
        try:
            event(self)
        finally:
            self.faults.note()
            wrong = self.traffic.end()
        try:
            if wrong:
                raise Broken("\n".join(wrong))
            self.check()
        except AssertionError as error:
            raise Broken(f"{error}\nafter: {'; '.join(self.trail[-20:])}\n{self._state()}") from None

    def close(self) -> None:
        super().close()
        self.traffic.close()

    # -- faults -----------------------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        """Its engines run on; the next worker takes them over, or finds them replaced."""
        worker = self._worker()
        assert worker.process is not None
        self._begin(worker, f"for {(seconds := self._seconds()):g} s")
        send_signal(worker.process.pid, signal.SIGKILL)
        worker.process.wait(30)
        time.sleep(seconds)
        self.cluster.start_worker(worker)

    def stop_worker(self) -> None:
        """Let a worker hang: its port still takes connections, and its engines run on."""
        worker = self._worker()
        assert worker.process is not None
        self._begin(worker, f"for {(seconds := self._seconds()):g} s")
        self._suspend(worker.process.pid, seconds)

    def cut_power(self) -> None:
        """Kill a worker with all that it has started."""
        worker = self._worker()
        self._begin(worker)
        self._killed |= {each.pid for each in scripted_engines(worker.home.path)}
        worker.kill_machine()
        time.sleep(self._seconds())
        self.cluster.start_worker(worker)

    def cut_link(self) -> None:
        """Pull the cable of a worker; without cables, let the worker hang."""
        worker = self._worker()
        if not self.cluster.hosts:
            self.stop_worker()
            return
        host = self.cluster.hosts[1 + self.cluster.workers.index(worker)]
        self._begin(worker, f"for {(seconds := self._seconds()):g} s")
        pull_cable(host)
        try:
            time.sleep(seconds)
        finally:
            plug_in(host)

    def kill_one(self) -> None:
        """Kill a keeper or an engine."""
        if victim := self._victim():
            self._killed |= {victim, *(each.pid for each in psutil.Process(victim).children())}
            self.faults.note()
            send_signal(victim, signal.SIGKILL)

    def stop_one(self) -> None:
        """Let a keeper or an engine hang for a while."""
        if victim := self._victim():
            self.faults.note()
            self._suspend(victim, self.random.uniform(0.1, 2))

    def kill_supervisor(self) -> None:
        seconds = self._seconds(2)
        with self.faults.without_server():
            self.cluster.kill_server()
            time.sleep(seconds)
            self.cluster.start()

    def stop_supervisor(self) -> None:
        """Let the supervisor hang. Its workers' links stay; their statuses wait in the kernel."""
        assert self.cluster.server is not None
        self._faulty |= {worker.node_id for worker in self.cluster.workers}
        with self.faults.without_server():
            self._suspend(self.cluster.server.pid, self._seconds())

    def drain(self) -> None:
        """Take a node out while requests go on, and take it in again; sometimes before it is empty."""
        worker = self._worker()
        self._begin(worker)
        self._killed |= {each.pid for each in self._before if each.node == worker.node_id}
        self.ask("POST", f"/v1/cluster/nodes/{worker.node_id}/drain")
        if self.random.random() < 0.7:
            until("the drained node is empty", lambda: not scripted_engines(worker.home.path), SETTLE_SECONDS)
        else:
            time.sleep(self._seconds(1))
        self.ask("POST", f"/v1/cluster/nodes/{worker.node_id}/undrain")

    def leave(self) -> None:
        """End a worker by Ctrl-C while requests go on, sometimes by two, and start it again."""
        worker = self._worker()
        assert worker.process is not None
        is_hurried = self.random.random() < 0.3
        self._begin(worker, "twice" if is_hurried else "")
        self._killed |= {each.pid for each in self._before if each.node == worker.node_id}
        send_signal(worker.process.pid, signal.SIGINT)
        if is_hurried:
            time.sleep(self.random.uniform(0.1, 1))
            self.faults.note()
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGINT)
        worker.process.wait(SETTLE_SECONDS)
        self.faults.note()
        if left := scripted_engines(worker.home.path):
            raise Broken(f"the worker of {worker.node_id} has ended, and its engines {left} run on")
        self.cluster.start_worker(worker)

    def wait(self) -> None:
        """Only requests."""
        time.sleep(self._seconds(2))

    def _begin(self, worker: WorkerHome, text: str = "") -> None:
        """A fault of a node begins."""
        self._faulty.add(worker.node_id)
        self.trail[-1] += f" {worker.node_id} {text}"
        self.faults.note()

    def _worker(self) -> WorkerHome:
        return self.random.choice(self.cluster.workers)

    def _seconds(self, kinds: int = 3) -> float:
        return self.random.choice(LENGTHS[:kinds])

    def _victim(self) -> int | None:
        engines = [each.pid for worker in self.cluster.workers for each in scripted_engines(worker.home.path)]
        keepers = [psutil.Process(pid).ppid() for pid in engines]
        return self.random.choice(sorted(engines + keepers)) if engines else None

    def _suspend(self, pid: int, seconds: float) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(seconds)
            finally:
                os.kill(pid, signal.SIGCONT)

    # -- invariants -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Wait until the cluster has settled, and compare what it says with what runs.

        Raises:
            AssertionError: an invariant does not hold.
        """
        until("the supervisor answers", self.cluster.home.answers, SETTLE_SECONDS)
        for worker in self.cluster.workers:
            self.cluster.wait_for(worker, "READY", SETTLE_SECONDS)
        until("models have settled", self.settled, SETTLE_SECONDS)
        until("every engine has an owner, and every owner its engine", self._all_agree, SETTLE_SECONDS)
        self.compare_promises()
        self._check_reloads()
        entries = self.instances()
        counts = {uid: len(entry["replicas"]) for uid, entry in entries.items()}
        for uid in counts.keys() & self._counts.keys() - self.changed:
            if counts[uid] != self._counts[uid]:
                raise Broken(f"{uid} had {self._counts[uid]} replicas and has {counts[uid]}, and nobody has changed it")
        self._counts = counts
        self.changed.clear()
        for uid, entry in entries.items():
            if entry["status"] == "READY":
                answer = self.ask("POST", "/v1/chat/completions", json=_chat(uid))
                if answer is None or answer.status_code != 200:
                    raise Broken(f"{uid} is READY and answers {None if answer is None else answer.text}")

    def _all_agree(self) -> bool:
        """The processes, the list and the rows are the same replicas: none twice, none orphaned."""
        found, listed = self._scan(), self._listed()
        places = [(each.node, each.replica) for each in found]
        return len(places) == len(set(places)) and set(found) == set(listed) and self._rows() == set(listed.values())

    def _scan(self) -> list[Running]:
        """The engines that run on all hosts."""
        found = []
        for worker in self.cluster.workers:
            for process in scripted_engines(worker.home.path):
                with contextlib.suppress(psutil.Error):
                    replica = Path(process.environ()[KEEPER_VARIABLE]).stem
                    found.append(Running(worker.node_id, replica, process.pid))
        return found

    def _listed(self) -> dict[Running, tuple[str, str, str]]:
        """The replicas that have an engine by the supervisor's list, with replica id, uid and node of their rows."""
        return {
            Running(each["node"], each["replica_uid"], each["engine_pid"]): (each["replica_uid"], uid, each["node"])
            for uid, entry in self.instances().items()
            for each in entry["replicas"]
            if each["engine_pid"]
        }

    def _rows(self) -> set[tuple[str, str, str]]:
        """Replica id, uid and node of each row of a replica."""
        with contextlib.closing(sqlite3.connect(self.cluster.home.path / "xinference.db", timeout=30)) as db:
            return set(db.execute("SELECT replica_id, uid, node_id FROM replicas"))

    def _check_reloads(self) -> None:
        """No engine ended that nobody killed, unless its node was LOST or its model was changed."""
        lost = self._lost_nodes()
        if unexpected := lost - self._faulty:
            raise Broken(f"{unexpected} were LOST without a fault")
        now = {running: row[1] for running, row in self._listed().items()}
        for running, uid in self._before.items():
            is_changed = uid in self.changed
            if running not in now and not is_changed and running.pid not in self._killed and running.node not in lost:
                raise Broken(f"{running} of {uid} was loaded again without a reason")
        self._before = now

    def _lost_nodes(self) -> set[str]:
        """The nodes that were LOST since the last check, by the supervisor's log."""
        text = (self.cluster.home.path / "process.log").read_bytes()
        new, self._log_read = text[self._log_read :].decode(errors="replace"), len(text)
        return {
            worker.node_id
            for worker in self.cluster.workers
            if any(f"node {worker.node_id} " in line and ": LOST, was" in line for line in new.splitlines())
        }

    def _state(self) -> str:
        try:
            entries = {uid: (entry["status"], entry["replicas"]) for uid, entry in self.instances().items()}
        except AssertionError as error:
            return str(error)
        return f"{entries}\nengines: {sorted(self._scan())}\nrows: {sorted(self._rows())}\nbefore: {self._before}"


def _chat(uid: str) -> dict[str, Any]:
    return {"model": uid, "messages": [{"role": "user", "content": "hello"}]}


#: The events, with how often each happens in relation to the others.
EVENTS: tuple[tuple[Callable[[NodeChaos], None], int], ...] = (
    (NodeChaos.launch, 8),
    (NodeChaos.terminate, 2),
    (NodeChaos.change_replicas, 4),
    (NodeChaos.wait, 1),
    (NodeChaos.kill_worker, 4),
    (NodeChaos.stop_worker, 3),
    (NodeChaos.cut_power, 3),
    (NodeChaos.cut_link, 4),
    (NodeChaos.kill_one, 4),
    (NodeChaos.stop_one, 2),
    (NodeChaos.kill_supervisor, 3),
    (NodeChaos.stop_supervisor, 2),
    (NodeChaos.drain, 3),
    (NodeChaos.leave, 3),
)
