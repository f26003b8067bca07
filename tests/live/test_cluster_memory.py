"""An engine on another machine that takes more memory than its ceiling: it is ended, and the supervisor says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.cluster_processes import ClusterProcesses
from tests.support.polling import until
from tests.support.scripted_home import scripted_launch

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
UID = "eater"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    env = {"XINFERENCE_ENGINE_MEMORY_MARGIN": "64MiB", "XINFERENCE_RESTART_BACKOFF_SECONDS": "0.1"}
    made = ClusterProcesses(tmp_path / "homes", env=env, is_scripted=True)
    try:
        made.start()
        made.add_worker()
        weights = write_gguf(TINY, "Q8_0", tmp_path / "tiny.gguf")
        body = scripted_launch(weights, UID, script={"eat": {"mib_per_second": 200, "on": "bad"}})
        httpx2.post(f"{made.home.url}/v1/models", json=body, timeout=90).raise_for_status()
        yield made
    finally:
        made.close()


def _ask(cluster: ClusterProcesses, text: str) -> httpx2.Response:
    body = {"model": UID, "messages": [{"role": "user", "content": text}]}
    return httpx2.post(f"{cluster.home.url}/v1/chat/completions", json=body, timeout=120)


def test_an_engine_of_a_worker_above_its_memory_ceiling_is_told_and_started_again(cluster: ClusterProcesses) -> None:
    (worker,) = cluster.workers
    before = cluster.ready_on(UID)
    assert before.keys() == {worker.node_id}
    assert _ask(cluster, "hello").status_code == 200

    refused = _ask(cluster, "a bad request")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (502, "engine_out_of_memory"), error

    until(
        "it is started again", lambda: cluster.ready_on(UID).get(worker.node_id) not in (None, before[worker.node_id])
    )
    assert _ask(cluster, "hello").status_code == 200
    events = cluster.get(f"/v1/models/{UID}/events")
    assert [each["stage"] for each in events if "more than its ceiling of" in each["event_content"]] == ["restart"]
