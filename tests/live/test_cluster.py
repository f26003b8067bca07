"""A supervisor and two workers on this machine: launches, losses and returns, in the API and among the processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.support.cluster_processes import ClusterProcesses, WorkerHome
from tests.support.home import send_signal
from tests.support.polling import until

UID = "spread"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    env = {
        "XINFERENCE_NODE_LOST_SECONDS": "30",
        "XINFERENCE_PROBE_SECONDS": "1",
        "XINFERENCE_HUNG_SECONDS": "10",
    }
    made = ClusterProcesses(tmp_path_factory.mktemp("cluster"), env=env)
    try:
        made.start()
        made.add_worker()
        made.add_worker()
        yield made
    finally:
        made.close()


@pytest.fixture
def spread(cluster: ClusterProcesses, tiny: dict[str, Any]) -> dict[str, int]:
    """The tiny model with a replica on each of the two nodes: node id -> pid of its engine."""
    for worker in cluster.workers:
        if worker.process is None or worker.process.poll() is not None:
            cluster.start_worker(worker)
        cluster.wait_for(worker, "READY")
    httpx2.delete(f"{cluster.home.url}/v1/models/{UID}", timeout=60)
    answer = cluster.home.launch(**tiny, model_uid=UID, replica=2)
    assert answer.status_code == 200, answer.text
    until("both are ready", lambda: len(cluster.ready_on(UID)) == 2)
    return cluster.ready_on(UID)


def _ask(cluster: ClusterProcesses, count: int = 6, max_tokens: int = 4) -> set[int]:
    """The statuses of requests at the same time."""
    with ThreadPoolExecutor(count) as threads:
        return set(threads.map(lambda _: cluster.home.chat(model=UID, max_tokens=max_tokens).status_code, range(count)))


def _other(cluster: ClusterProcesses, worker: WorkerHome) -> WorkerHome:
    return next(each for each in cluster.workers if each is not worker)


def test_each_node_gets_a_replica_and_answers(cluster: ClusterProcesses, spread: dict[str, int]) -> None:
    assert spread.keys() == {worker.node_id for worker in cluster.workers}
    assert {node: [pid] for node, pid in spread.items()} == cluster.engines()
    assert _ask(cluster) == {200}
    listed = {node["node_id"]: node["replicas"] for node in cluster.nodes()}
    assert sorted(name for names in listed.values() for name in names) == [f"{UID}-rep0", f"{UID}-rep1"]
    models = [list(each["models"]) for each in cluster.get("/v1/workers")]
    assert models.count([UID]) == 2
    named = {node["node_id"]: ([node["name"]], node["address"]) for node in cluster.nodes()}
    (instance,) = cluster.get("/v1/models/instances")
    for replica in (*instance["replicas"], *cluster.replicas(UID)):
        names, address = named[replica["node"]]
        assert replica["worker_address"] == address
        assert replica["node_names"] in (names, [replica["node"]]), "both workers may have the name of this machine"
    text = httpx2.get(f"{cluster.home.url}/v1/models/{UID}/logs", timeout=60).text
    for replica in instance["replicas"]:
        _, _, output = text.partition(f"==> {replica['replica_model_uid']} on {replica['node_names'][0]} <==\n")
        assert output and not output.startswith("==>")
    metrics = httpx2.get(f"{cluster.home.url}/metrics", timeout=60).text
    for replica in instance["replicas"]:
        node, process = replica["node"], replica["replica_uid"]
        assert f'xinference_replica_info{{model="{UID}",node="{node}",replica="{process}"}} 1.0' in metrics
        assert f'xinference_node_state{{name="{named[node][0][0]}",node="{node}",state="READY"}} 1.0' in metrics
        assert f'xinference_node_memory_bytes{{device="host",kind="free",node="{node}"}}' in metrics


def test_engines_outlive_their_worker_and_the_next_one_takes_them_over(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    worker = cluster.workers[0]
    assert worker.process is not None
    send_signal(worker.process.pid, signal.SIGKILL)
    worker.process.wait(30)
    cluster.wait_for(worker, "UNREACHABLE")
    assert _ask(cluster) == {200}, "the other node answers"
    cluster.start_worker(worker)
    cluster.wait_for(worker, "READY")
    assert cluster.ready_on(UID) == spread
    assert _ask(cluster) == {200}


def test_a_worker_is_restarted_by_an_upgrade_and_its_engines_run_on(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    worker = cluster.workers[0]
    done = cluster.home.cli("cluster", "upgrade", worker.node_id)
    assert done.returncode == 0, done.stderr
    assert "its engine kept running" in done.stderr
    assert cluster.state(worker) == "READY" and cluster.ready_on(UID) == spread
    _, _, after = (worker.home.path / "process.log").read_text().rpartition("the supervisor asks for a restart")
    assert "runs as node" in after
    assert worker.process is not None and worker.process.poll() is None, "the process is the same"
    assert _ask(cluster) == {200}
    keeper = cluster.instance_keeper(UID, worker)
    httpx2.delete(f"{cluster.home.url}/v1/models/{UID}", timeout=60)
    until("the keeper of the earlier program is no zombie", lambda: not psutil.pid_exists(keeper))


def test_an_upgrade_of_a_node_that_is_out_of_reach_is_refused(cluster: ClusterProcesses) -> None:
    worker = cluster.workers[1]
    worker.kill_machine()
    cluster.wait_for(worker, "UNREACHABLE")
    answer = httpx2.post(f"{cluster.home.url}/v1/cluster/nodes/{worker.node_id}/upgrade", timeout=60)
    assert (answer.status_code, answer.json()["problem"]["code"]) == (503, "node_gone")
    cluster.start_worker(worker)
    cluster.wait_for(worker, "READY")


def test_an_engine_of_a_worker_that_hangs_is_started_again(cluster: ClusterProcesses, spread: dict[str, int]) -> None:
    hung = cluster.workers[0].node_id
    send_signal(spread[hung], signal.SIGSTOP)
    assert _ask(cluster, 4) <= {200, 502}
    until("it is started again", lambda: cluster.ready_on(UID).get(hung) not in (None, spread[hung]))
    assert cluster.ready_on(UID).keys() == spread.keys()
    assert _ask(cluster, max_tokens=5) == {200}, "the equal request is suspected"


def test_the_next_supervisor_finds_the_engines_and_loads_nothing(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    cluster.kill_server()
    cluster.start()
    until("both are ready", lambda: cluster.ready_on(UID) == spread)
    assert {node: [pid] for node, pid in spread.items()} == cluster.engines()
    assert _ask(cluster) == {200}


def test_a_lost_machine_is_replaced_by_another_and_comes_back_without_its_engines(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    lost = cluster.workers[1]
    living = _other(cluster, lost)
    lost.kill_machine()
    assert _ask(cluster) == {200}
    cluster.wait_for(lost, "LOST")
    until("its replica is on the other node", lambda: _nodes(cluster) == [living.node_id] * 2)
    assert cluster.ready_on(UID)[living.node_id]
    cluster.start_worker(lost)
    cluster.wait_for(lost, "READY")
    assert cluster.engines()[lost.node_id] == []
    assert _ask(cluster) == {200}


def test_a_machine_that_was_only_out_of_reach_ends_what_was_replaced(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    silent = cluster.workers[0]
    living = _other(cluster, silent)
    assert silent.process is not None
    send_signal(silent.process.pid, signal.SIGSTOP)  # its engine runs on
    try:
        cluster.wait_for(silent, "LOST")
        until("its replica is on the other node", lambda: _nodes(cluster) == [living.node_id] * 2)
        assert cluster.engines()[silent.node_id] == [spread[silent.node_id]]
    finally:
        send_signal(silent.process.pid, signal.SIGCONT)
    cluster.wait_for(silent, "READY")
    until("its engine is stopped", lambda: cluster.engines()[silent.node_id] == [])
    assert _nodes(cluster) == [living.node_id] * 2
    assert cluster.engines()[living.node_id], "and no other"


def test_a_drained_node_gives_its_replica_away_without_a_failed_request(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    drained = cluster.workers[0]
    other = _other(cluster, drained)
    cluster.post(f"/v1/cluster/nodes/{drained.node_id}/drain")
    statuses: set[int] = set()

    def moved() -> bool:
        statuses.update(_ask(cluster, 2))
        return _nodes(cluster) == [other.node_id] * 2

    until("its replica has moved", moved)
    assert statuses == {200} and cluster.state(drained) == "DRAINING"
    until("its engine is stopped", lambda: cluster.engines()[drained.node_id] == [])
    cluster.post(f"/v1/cluster/nodes/{drained.node_id}/undrain")
    cluster.wait_for(drained, "READY")


def test_a_worker_that_ends_by_ctrl_c_leaves_no_engine_and_its_replica_is_elsewhere(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    leaving = cluster.workers[0]
    other = _other(cluster, leaving)
    assert leaving.process is not None
    send_signal(leaving.process.pid, signal.SIGINT)
    statuses: set[int] = set()

    def moved() -> bool:
        statuses.update(_ask(cluster, 2))
        return _nodes(cluster) == [other.node_id] * 2

    until("its replica has moved", moved)
    assert leaving.process.wait(30) == 0
    assert leaving.home.processes() == [] and statuses == {200}
    log = (leaving.home.path / "process.log").read_text()
    assert "ended (engines stopped)" in log and "killed the engines" not in log and "has not confirmed" not in log
    why = f"of {UID} is moved; its successor is replica"
    assert why in (cluster.home.path / "process.log").read_text(), "the other replica was ready before it stopped"
    reported = f"node {leaving.node_id} \\(.*\\): LEAVING, was READY: its worker ends"
    assert re.search(reported, (cluster.home.path / "process.log").read_text())
    cluster.start_worker(leaving)
    cluster.wait_for(leaving, "READY")


def test_a_second_ctrl_c_ends_a_worker_and_its_engines_at_once(
    cluster: ClusterProcesses, spread: dict[str, int]
) -> None:
    worker = cluster.workers[0]
    assert worker.process is not None
    send_signal(spread[worker.node_id], signal.SIGSTOP)  # it does not stop by itself
    send_signal(worker.process.pid, signal.SIGINT)
    cluster.wait_for(worker, "LEAVING")
    send_signal(worker.process.pid, signal.SIGINT)
    assert worker.process.wait(8) == 0, "less than the time that an engine gets"
    assert worker.home.processes() == []
    cluster.start_worker(worker)
    cluster.wait_for(worker, "READY")


def test_a_pinned_replica_waits_for_its_machine(cluster: ClusterProcesses, tiny: dict[str, Any]) -> None:
    pinned = cluster.workers[1]
    answer = cluster.home.launch(**tiny, model_uid="pinned", worker_ip=pinned.node_id)
    assert answer.status_code == 200, answer.text
    pinned.kill_machine()
    cluster.wait_for(pinned, "LOST")
    until("it waits", lambda: [each["status"] for each in cluster.replicas("pinned")] == ["RECOVERING"])
    cluster.start_worker(pinned)
    until("it is back", lambda: pinned.node_id in cluster.ready_on("pinned"))
    httpx2.delete(f"{cluster.home.url}/v1/models/pinned", timeout=60)


def test_a_label_that_no_worker_has_is_refused(cluster: ClusterProcesses, tiny: dict[str, Any]) -> None:
    answer = cluster.home.launch(**tiny, model_uid="labelled", labels={"gpu": "h100"})
    assert answer.status_code == 503, answer.text
    assert "has no label gpu, and the launch asks for gpu=h100" in answer.json()["detail"]


def test_a_removed_node_ends_and_its_replicas_are_elsewhere(cluster: ClusterProcesses, spread: dict[str, int]) -> None:
    removed = cluster.workers[1]
    other = _other(cluster, removed)
    answer = httpx2.delete(f"{cluster.home.url}/v1/cluster/nodes/{removed.node_id}", timeout=60)
    assert answer.status_code == 200, answer.text
    assert removed.process is not None
    removed.process.wait(60)
    assert cluster.engines()[removed.node_id] == []
    until("its replica is on the other node", lambda: _nodes(cluster) == [other.node_id] * 2)
    cluster.start_worker(removed)
    log = removed.home.path / "process.log"
    until("it is refused", lambda: "was removed from the cluster" in _last_lines(log))
    removed.kill_machine()
    removed.node_id = ""


def _nodes(cluster: ClusterProcesses) -> list[str]:
    """The nodes of the ready replicas."""
    return sorted(each["node"] for each in cluster.replicas(UID) if each["status"] == "READY")


def _last_lines(path: Path) -> str:
    return "".join(path.read_text().splitlines(keepends=True)[-20:])
