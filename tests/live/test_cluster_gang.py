"""One replica of vLLM on two hosts: the ranks meet over gloo, fail as one, and outlive their workers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from tests.live.test_vllm import ASSETS, PAIRS, PYTHON, START_SECONDS
from tests.support.cluster_processes import ClusterProcesses, WorkerHome
from tests.support.home import send_signal
from tests.support.network_hosts import missing, network_hosts
from tests.support.polling import until

UID = "split"

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(START_SECONDS * 3),
    pytest.mark.skipif(PYTHON is None, reason="vLLM's environment is not built here"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    assert PYTHON is not None
    with network_hosts(3) as hosts:
        env = {"XINFERENCE_RESTART_BACKOFF_SECONDS": "0.1"}
        made = ClusterProcesses(tmp_path_factory.mktemp("gang"), env=env, hosts=hosts, environments=PYTHON.parents[2])
        try:
            made.start()
            for _ in range(2):
                made.add_worker("--label", "fabric=private")
            body = {
                "model_engine": "vLLM",
                "model_name": "llama-2-chat",
                "model_size_in_billions": "7",
                "model_uid": UID,
                "model_format": "pytorch",
                "quantization": "none",
                "model_path": str(ASSETS),
                "n_worker": 2,
            }
            answer = httpx2.post(f"{made.home.url}/v1/models", json=body, timeout=START_SECONDS)
            assert answer.status_code == 200, answer.text
            yield made
        finally:
            made.close()


def _ranks(worker: WorkerHome) -> list[int]:
    """The main process of the rank on a worker."""
    found = []
    for process in worker.home.processes():
        try:
            if "--node-rank" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def _answers(cluster: ClusterProcesses) -> bool:
    """Whether the first question has its answer."""
    pair = PAIRS[0]
    body = {"model": UID, "messages": [{"role": "user", "content": pair["question"]}], "temperature": 0}
    answer = httpx2.post(f"{cluster.home.url}/v1/chat/completions", json=body | {"max_tokens": 200}, timeout=240)
    if answer.status_code != 200:
        return False
    text = json.loads(answer.content)["choices"][0]["message"]["content"]
    return bool(text.removeprefix(" ") == pair["answer"])


def test_two_hosts_compute_one_replica_together(cluster: ClusterProcesses) -> None:
    assert [len(_ranks(worker)) > 0 for worker in cluster.workers] == [True, True]
    assert _answers(cluster)


def test_a_worker_that_starts_again_takes_its_rank_over(cluster: ClusterProcesses) -> None:
    before = [_ranks(worker) for worker in cluster.workers]
    worker = cluster.workers[1]
    assert worker.process is not None
    send_signal(worker.process.pid, signal.SIGKILL)
    worker.process.wait(30)
    cluster.wait_for(worker, "UNREACHABLE")
    cluster.start_worker(worker)
    cluster.wait_for(worker, "READY")
    assert [_ranks(worker) for worker in cluster.workers] == before
    assert _answers(cluster)


def test_a_killed_rank_ends_the_other_and_both_start_again(cluster: ClusterProcesses) -> None:
    before = [set(_ranks(worker)) for worker in cluster.workers]
    for pid in before[1]:
        send_signal(pid, signal.SIGKILL)

    def are_new() -> bool:
        now = [set(_ranks(worker)) for worker in cluster.workers]
        return all(new and not new & old for new, old in zip(now, before, strict=True))

    until("both ranks are new processes", are_new, START_SECONDS)
    until("they answer", lambda: _answers(cluster), START_SECONDS)
