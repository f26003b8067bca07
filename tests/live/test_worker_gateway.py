"""Requests that a worker takes: they go on while the supervisor is down, and while it starts again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.cluster_processes import ClusterProcesses
from tests.support.polling import until
from tests.support.scripted_home import scripted_launch

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    folder = tmp_path_factory.mktemp("gateways")
    made = ClusterProcesses(folder / "homes", is_scripted=True)
    try:
        made.start()
        made.add_worker("--serve")
        made.add_worker()
        weights = write_gguf(TINY, "Q8_0", folder / "tiny.gguf")
        for uid, fields in (("both", {"replica": 2}), ("later", {"on_demand": True})):
            body = scripted_launch(weights, uid, script={"chunks": 10, "interval": 0.02}, **fields)
            httpx2.post(f"{made.home.url}/v1/models", json=body, timeout=90).raise_for_status()
        yield made
    finally:
        made.close()


def _url(cluster: ClusterProcesses) -> str:
    """Where the worker takes requests."""
    return cluster.workers[0].home.url


def _ask(cluster: ClusterProcesses, uid: str, *, stream: bool = False) -> httpx2.Response:
    body = {"model": uid, "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    return httpx2.post(f"{_url(cluster)}/v1/chat/completions", json=body, timeout=90)


def test_a_worker_answers_with_all_replicas_of_the_cluster(cluster: ClusterProcesses) -> None:
    until("the worker knows the model", lambda: _ask(cluster, "both").status_code == 200)
    assert _ask(cluster, "both", stream=True).text.endswith("data: [DONE]\n\n")
    listed = httpx2.get(f"{_url(cluster)}/v1/models", timeout=30).json()
    assert [each["id"] for each in listed["data"]] == ["both", "later"]
    assert cluster.nodes()[0]["serves"] == _url(cluster).removeprefix("http://")


def test_the_machines_of_workers_and_the_names_of_nodes_are_shown(cluster: ClusterProcesses) -> None:
    machines = cluster.get("/v1/devices")["workers"]
    assert {each["node"] for each in machines} == {worker.node_id for worker in cluster.workers}
    for machine in machines:
        assert machine["state"] == "READY" and machine["host"]["total"] > 0
        (owner,) = [each for each in machine["host"]["owners"] if each["model_uid"] == "both"]
        assert owner["node"] == machine["node"] and owner["planned"] and owner["measured"]
    with httpx2.stream("GET", f"{cluster.home.url}/v1/watch", params={"topics": "models"}, timeout=60) as answer:
        lines = answer.iter_lines()
        data = next(line for line in lines if line.startswith("data: ") and '"both"' in line)
    for worker in cluster.workers:
        assert f'"node_names":["{worker.node_id}"]' in data, "both workers have the name of this machine"


def test_a_model_on_demand_is_loaded_by_a_request_at_a_worker(cluster: ClusterProcesses) -> None:
    answer = _ask(cluster, "later")
    assert answer.status_code == 200, answer.text


def test_no_request_at_a_worker_fails_while_the_supervisor_is_killed_and_started_again(
    cluster: ClusterProcesses,
) -> None:
    ended = threading.Event()
    failed: list[str] = []
    answered: list[str] = []

    def ask() -> None:
        while not ended.is_set():
            answer = _ask(cluster, "both", stream=True)
            (answered if answer.status_code == 200 and "[DONE]" in answer.text else failed).append(answer.text)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for each in asking:
        each.start()
    cluster.kill_server()
    so_far = len(answered)
    until("answers without a supervisor", lambda: len(answered) > so_far + 10)
    cluster.start()
    until("all nodes are READY", lambda: [node["state"] for node in cluster.nodes()] == ["READY"] * 2)
    until("both replicas are ready", lambda: len(cluster.ready_on("both")) == 2)
    so_far = len(answered)
    until("answers with the next supervisor", lambda: len(answered) > so_far + 10)
    ended.set()
    for each in asking:
        each.join()
    assert failed == []


def test_a_replica_that_is_removed_ends_no_stream_at_a_worker(cluster: ClusterProcesses) -> None:
    streams: list[httpx2.Response] = []
    asking = [threading.Thread(target=lambda: streams.append(_ask(cluster, "both", stream=True))) for _ in range(8)]
    for each in asking:
        each.start()
    httpx2.delete(f"{cluster.home.url}/v1/models/both/replicas/1", timeout=60).raise_for_status()
    for each in asking:
        each.join()
    assert all("[DONE]" in each.text and '"error"' not in each.text for each in streams), [s.text for s in streams]


def test_the_supervisor_counts_what_a_worker_has_answered_with_its_tokens_and_times(cluster: ClusterProcesses) -> None:
    worker = cluster.workers[0].node_id

    def streams() -> list[dict[str, Any]]:
        return [each for each in _records(cluster) if each["stream"] and each["node"] == worker]

    known = {each["id"] for each in streams()}
    assert _ask(cluster, "both", stream=True).status_code == 200
    last = until("it is known", lambda: [each for each in streams() if each["id"] not in known])[0]
    assert last["output_tokens"] and last["first_token"], last
    assert sum(entry["requests"] for entry in cluster.get("/v1/usage?model=both")) >= 1
    metrics = httpx2.get(f"{cluster.home.url}/metrics", timeout=30).text
    assert 'xinference_time_to_first_token_seconds_count{model="both"}' in metrics


def test_what_a_worker_answers_while_the_supervisor_is_down_is_counted_by_the_next_one(
    cluster: ClusterProcesses,
) -> None:
    cluster.kill_server()
    answered = [_ask(cluster, "both").status_code for _ in range(5)]
    assert answered == [200] * 5
    cluster.start()
    until("they are counted", lambda: len(_records(cluster)) >= 5)
    assert len({each["id"] for each in _records(cluster)}) == len(_records(cluster)), "each is counted once"


def _records(cluster: ClusterProcesses) -> list[dict[str, Any]]:
    """The last requests for the model, as the supervisor knows them since its start."""
    found: list[dict[str, Any]] = cluster.get("/v1/requests?model=both&limit=100")
    return found
