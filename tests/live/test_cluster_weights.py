"""Three workers on this machine, each with caches of its own: one of them asks the hub, and the others copy from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conformance.__main__ import ASSETS, hub_environment
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Fault, repository
from tests.formats.gguf_model import write_gguf
from tests.support.cluster_processes import ClusterProcesses, WorkerHome
from tests.support.polling import until

UID, NAME, FILE = "copied", "tiny-hub", "tiny.Q8_0.gguf"
WORKERS = 3


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    weights = tmp_path / FILE
    write_gguf(ASSETS, "Q8_0", weights)
    with serve(LoopbackHub([repository("me/Tiny-GGUF", {FILE: weights}, ("main",))])) as served:
        yield served


@pytest.fixture
def cluster(tmp_path: Path, hub: LoopbackHub) -> Iterator[ClusterProcesses]:
    made = ClusterProcesses(tmp_path / "cluster", env={"XINFERENCE_NODE_LOST_SECONDS": "5"})
    try:
        made.env.update(hub_environment(tmp_path / "caches of the supervisor", hub.url))
        made.start()
        for number in range(WORKERS):
            made.env.update(hub_environment(tmp_path / f"caches {number}", hub.url))
            # The last worker may not connect to a hub.
            made.env["XINFERENCE_OFFLINE"] = "1" if number == WORKERS - 1 else ""
            made.add_worker()
        yield made
    finally:
        made.close()


def test_each_byte_is_asked_of_the_hub_once_and_the_others_copy(
    cluster: ClusterProcesses, hub: LoopbackHub, tmp_path: Path
) -> None:
    register(cluster)
    launched = cluster.home.launch(model_name=NAME, model_uid=UID, model_engine="llama.cpp", replica=WORKERS)
    assert launched.status_code == 200, launched.text
    until("all replicas are ready", lambda: len(cluster.ready_on(UID)) == WORKERS, 120)
    assert cluster.ready_on(UID).keys() == {worker.node_id for worker in cluster.workers}
    assert cluster.home.chat(model=UID, max_tokens=4).status_code == 200

    size = (tmp_path / FILE).stat().st_size
    assert hub.counters.sent == {FILE: size}
    stored = [path.stat().st_size for path in tmp_path.glob("caches [0-9]/**/blobs/*") if path.is_file()]
    assert stored == [size] * WORKERS
    assert not list(tmp_path.glob("caches of the supervisor/**/blobs/*"))
    contents = [event["event_content"] for event in events(cluster)]
    assert len([text for text in contents if "from huggingface" in text]) == 1
    assert len([text for text in contents if text.startswith("copying ")]) == WORKERS - 1
    metrics = httpx2.get(f"{cluster.home.url}/metrics", timeout=60).text
    assert 'xinference_download_bytes_total{hub="peer"}' in metrics


def test_another_worker_downloads_if_the_one_that_does_is_killed(
    cluster: ClusterProcesses, hub: LoopbackHub, tmp_path: Path
) -> None:
    register(cluster)
    hub.faults[FILE] = Fault(times=100, seconds_a_chunk=0.5)
    first, second, _ = cluster.workers
    named = f"{first.node_id},{second.node_id}"
    body = {"model_name": NAME, "model_uid": UID, "model_engine": "llama.cpp", "worker_ip": named}
    cluster.post("/v1/models?wait_ready=false", body)

    def downloading() -> list[WorkerHome]:
        return [worker for n, worker in enumerate(cluster.workers) if list(tmp_path.glob(f"caches {n}/**/blobs/*"))]

    until("a worker downloads", downloading, 60)
    (killed,) = downloading()
    killed.kill_machine()
    hub.faults.clear()
    until("another one is ready", lambda: cluster.ready_on(UID), 60)
    assert cluster.ready_on(UID).keys() == {first.node_id, second.node_id} - {killed.node_id}
    contents = [event["event_content"] for event in events(cluster)]
    lost = f"The node {killed.node_id} is lost."
    assert len([text for text in contents if lost in text and "is prepared again on a node" in text]) == 1


def test_an_unloaded_model_on_demand_is_loaded_after_a_restart_of_the_supervisor(cluster: ClusterProcesses) -> None:
    register(cluster, is_stored=True)
    body = {"model_name": NAME, "model_uid": UID, "model_engine": "llama.cpp", "on_demand": True}
    cluster.post("/v1/models?wait_ready=true", body)
    cluster.kill_server()
    cluster.start()
    assert cluster.home.chat(model=UID, max_tokens=4).status_code == 200


def register(cluster: ClusterProcesses, *, is_stored: bool = False) -> None:
    """Register the tiny model of the hub."""
    model = {
        "version": 2,
        "context_length": 2048,
        "model_name": NAME,
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_family": "other",
        "chat_template": "llama-2-chat",
        "model_specs": [
            {
                "model_format": "ggufv2",
                "model_size_in_billions": 1,
                "quantization": "Q8_0",
                "model_id": "me/Tiny-GGUF",
                "model_hub": "huggingface",
                "model_file_name_template": FILE,
            }
        ],
    }
    registered = httpx2.post(
        f"{cluster.home.url}/v1/model_registrations/LLM",
        json={"model": json.dumps(model), "persist": is_stored},
        timeout=60,
    )
    assert registered.status_code == 200, registered.text


def events(cluster: ClusterProcesses) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get(f"/v1/models/{UID}/events")
    return found
