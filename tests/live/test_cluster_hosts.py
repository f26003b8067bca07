"""Three workers on hosts of their own: each loss, and what is told to whom after how many seconds.

Run it with ``-s`` to see the record.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.support.cluster_processes import ClusterProcesses
from tests.support.home import send_signal
from tests.support.network_hosts import (
    drop_no_packets,
    drop_packets_to,
    missing,
    network_hosts,
    plug_in,
    pull_cable,
)
from tests.support.polling import until

UID = "spread"
#: A pulled cable is noticed after 8 s; the machine that runs these tests may be busy.
TOLD_SECONDS = 30.0
#: Processes on each host that compute hashes, as fetches do, and for how long.
BUSY, BUSY_SECONDS = 2, 60.0
HASHES = "import hashlib\nwhile True: hashlib.sha256(bytes(1 << 20)).digest()"

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Site:
    """A cluster on hosts, and the record of what happened."""

    def __init__(self, cluster: ClusterProcesses) -> None:
        self.cluster = cluster
        self.began = time.monotonic()

    def record(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:7.2f} s  {text}", flush=True)

    def begin(self, text: str) -> None:
        self.began = time.monotonic()
        self.record(text)

    def wait(self, what: str, look: Any) -> float:
        """Wait for a condition, and record it; returns the seconds since `begin`."""
        until(what, look)
        self.record(what)
        return time.monotonic() - self.began

    def nodes(self) -> list[str]:
        return sorted(each["node"] for each in self.cluster.replicas(UID) if each["status"] == "READY")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Iterator[Site]:
    with network_hosts(4) as hosts:
        env = {"XINFERENCE_NODE_LOST_SECONDS": "15"}
        made = ClusterProcesses(tmp_path_factory.mktemp("hosts"), env=env, hosts=hosts)
        try:
            made.start()
            for _ in range(3):
                made.add_worker()
            site = Site(made)
            site.begin("launch three replicas")
            answer = made.home.launch(**tiny, model_uid=UID, replica=3)
            assert answer.status_code == 200, answer.text
            site.wait("one replica is on each host", lambda: len(made.ready_on(UID)) == 3)
            yield site
        finally:
            made.close()


def _ask(site: Site, count: int) -> list[tuple[int, float]]:
    """Status and seconds of requests at the same time; 0: the connection broke."""

    def ask(_: int) -> tuple[int, float]:
        began = time.monotonic()
        try:
            status = site.cluster.home.chat(model=UID, max_tokens=4).status_code
        except httpx2.HTTPError:
            status = 0
        return status, time.monotonic() - began

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ask, range(count)))


def _all_answered(site: Site, answers: list[tuple[int, float]], statuses: set[int]) -> None:
    slowest = max(seconds for _, seconds in answers)
    site.record(f"{len(answers)} requests: statuses {sorted({s for s, _ in answers})}, slowest after {slowest:.2f} s")
    assert {status for status, _ in answers} <= statuses
    assert slowest < TOLD_SECONDS


def _replicas_that_answer(site: Site, count: int) -> list[str]:
    last = site.cluster.get("/v1/requests?limit=1")[0]["id"]
    _all_answered(site, _ask(site, count), {200})
    return [each["replica"] for each in site.cluster.get(f"/v1/requests?after={last}")]


def _same_engines(site: Site, expected: dict[str, int]) -> None:
    """Each node runs one engine, the expected one: none twice, none orphaned, none loaded again."""
    assert site.cluster.ready_on(UID) == expected
    assert site.cluster.engines() == {node: [pid] for node, pid in expected.items()}
    site.record(f"the engines are the processes {sorted(expected.values())}")


def test_a_cable_is_out_for_a_short_time_and_nothing_restarts(site: Site) -> None:
    cluster, worker, host = site.cluster, site.cluster.workers[0], site.cluster.hosts[1]
    before = cluster.ready_on(UID)
    site.begin(f"pull the cable of {worker.node_id}")
    pull_cable(host)
    _all_answered(site, _ask(site, 6), {200})
    site.wait(f"{worker.node_id} is UNREACHABLE", lambda: cluster.state(worker) == "UNREACHABLE")
    plug_in(host)
    site.record("the cable is back")
    site.wait(f"{worker.node_id} is READY", lambda: cluster.state(worker) == "READY")
    _same_engines(site, before)


def test_without_the_link_a_worker_goes_on_answering_and_nothing_restarts(site: Site) -> None:
    cluster, worker, host = site.cluster, site.cluster.workers[0], site.cluster.hosts[1]
    before = cluster.ready_on(UID)
    (instance,) = cluster.get("/v1/models/instances")
    replica = next(each["replica_uid"] for each in instance["replicas"] if each["node"] == worker.node_id)
    site.begin(f"drop what {worker.node_id} sends to the link, and not what its models answer")
    drop_packets_to(host, cluster.link_port)
    try:
        site.wait(f"{worker.node_id} is UNREACHABLE", lambda: cluster.state(worker) == "UNREACHABLE")
        # After a connection that failed, as in the test before, a replica gets no requests for some seconds.
        site.wait(f"{worker.node_id} answers", lambda: replica in _replicas_that_answer(site, 12))
        assert cluster.state(worker) == "UNREACHABLE"
    finally:
        drop_no_packets(host)
    site.wait(f"{worker.node_id} is READY", lambda: cluster.state(worker) == "READY")
    _same_engines(site, before)


def test_a_killed_worker_ends_no_engine(site: Site) -> None:
    cluster, worker = site.cluster, site.cluster.workers[0]
    before = cluster.ready_on(UID)
    assert worker.process is not None
    site.begin(f"kill the worker of {worker.node_id}, pid {worker.process.pid}")
    send_signal(worker.process.pid, signal.SIGKILL)
    worker.process.wait(30)
    site.wait(f"{worker.node_id} is not READY", lambda: cluster.state(worker) != "READY")
    _all_answered(site, _ask(site, 6), {200})
    cluster.start_worker(worker)
    site.wait(f"{worker.node_id} is READY", lambda: cluster.state(worker) == "READY")
    _same_engines(site, before)


def test_a_killed_keeper_takes_one_engine_with_it_which_is_started_again(site: Site) -> None:
    cluster, worker = site.cluster, site.cluster.workers[0]
    before, keeper = cluster.ready_on(UID), cluster.instance_keeper(UID, worker)
    lost = before[worker.node_id]
    site.begin(f"kill the keeper on {worker.node_id}, pid {keeper}, whose engine is {lost}")
    send_signal(keeper, signal.SIGKILL)
    # A request that the engine has begun is not repeated: it might end the next engine, too.
    _all_answered(site, _ask(site, 6), {200, 502})
    site.wait(
        "three replicas are ready with another engine",
        lambda: len(now := cluster.ready_on(UID)) == 3 and now[worker.node_id] != lost,
    )
    _same_engines(site, before | {worker.node_id: cluster.ready_on(UID)[worker.node_id]})


def test_a_killed_supervisor_loads_nothing_when_it_starts_again(site: Site) -> None:
    cluster = site.cluster
    before = cluster.ready_on(UID)
    assert cluster.server is not None
    site.begin(f"kill the supervisor, pid {cluster.server.pid}")
    cluster.kill_server()
    cluster.start()
    site.record("the supervisor answers")
    site.wait("a request is answered", lambda: {status for status, _ in _ask(site, 1)} == {200})
    site.wait("three replicas are ready", lambda: len(cluster.ready_on(UID)) == 3)
    _all_answered(site, _ask(site, 6), {200})
    _same_engines(site, before)


@pytest.mark.long
def test_hosts_whose_processors_are_busy_are_not_taken_for_dead(site: Site) -> None:
    cluster, seen = site.cluster, set[str]()
    site.begin(f"{BUSY} processes compute hashes on each host")
    busy = [
        subprocess.Popen([*host.prefix, sys.executable, "-c", HASHES]) for host in cluster.hosts for _ in range(BUSY)
    ]
    try:

        def watched() -> bool:
            seen.update(node["state"] for node in cluster.nodes())
            return time.monotonic() - site.began > BUSY_SECONDS

        site.wait(f"{BUSY_SECONDS:g} s are over", watched)
        _all_answered(site, _ask(site, 6), {200})
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert seen == {"READY"}


def test_a_cable_is_out_for_long_and_the_replica_moves_once(site: Site) -> None:
    cluster, worker, host = site.cluster, site.cluster.workers[1], site.cluster.hosts[2]
    before = cluster.ready_on(UID)
    site.begin(f"pull the cable of {worker.node_id}")
    pull_cable(host)
    site.wait(f"{worker.node_id} is LOST", lambda: cluster.state(worker) == "LOST")
    site.wait(
        "three replicas are ready without it", lambda: len(site.nodes()) == 3 and worker.node_id not in site.nodes()
    )
    _all_answered(site, _ask(site, 6), {200})
    plug_in(host)
    site.record("the cable is back")
    site.wait(f"{worker.node_id} is READY", lambda: cluster.state(worker) == "READY")
    site.wait("the replaced engine is stopped", lambda: cluster.engines()[worker.node_id] == [])
    assert sum(len(pids) for pids in cluster.engines().values()) == 3, "none twice, none orphaned"
    living = {pid for node, pid in before.items() if node != worker.node_id}
    assert living <= {pid for pids in cluster.engines().values() for pid in pids}, "no living engine was loaded again"
    site.record(f"the engines of the other hosts are the same processes: {sorted(living)}")


def test_a_power_cut_ends_no_request_without_an_answer(site: Site) -> None:
    cluster, worker = site.cluster, site.cluster.workers[2]
    site.begin(f"power cut at {worker.node_id}: pids {worker.kill_machine()}")
    _all_answered(site, _ask(site, 6), {200})
    site.wait(f"{worker.node_id} is LOST", lambda: cluster.state(worker) == "LOST")
    site.wait(
        "three replicas are ready without it", lambda: len(site.nodes()) == 3 and worker.node_id not in site.nodes()
    )
    _all_answered(site, _ask(site, 6), {200})
    cluster.start_worker(worker)
    site.wait(f"{worker.node_id} is READY", lambda: cluster.state(worker) == "READY")
    assert cluster.engines()[worker.node_id] == []
