"""What is told of a server that runs nothing, in the fields that clients read."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from xinference import __version__


async def get(client: httpx2.AsyncClient, path: str, **query: Any) -> Any:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_status_has_the_machine_and_what_it_uses(empty: httpx2.AsyncClient) -> None:
    status = await get(empty, "/status")
    assert (status["version"], status["models"]) == (__version__, 0) and isinstance(status["uptime"], int)
    (worker,) = status["workers"].values()
    assert {"update_time", "failure_remaining_count", "status"} <= set(worker)
    cpu = worker["status"]["cpu"]
    assert 0 <= cpu["usage"] <= 1 and cpu["total"] >= 1
    assert 0 < cpu["memory_available"] <= cpu["memory_total"] and cpu["memory_used"] > 0


async def test_the_cluster_is_one_machine(empty: httpx2.AsyncClient) -> None:
    address = await get(empty, "/v1/address")
    assert address == "127.0.0.1:9997"
    assert await get(empty, "/v1/supervisor") == {"supervisor_ip": address}
    assert await get(empty, "/v1/workers") == [{"work-ip": address, "models": {}}]
    assert (await get(empty, "/v1/cluster/version"))["version"] == __version__
    nodes = await get(empty, "/v1/cluster/info")
    assert [node["node_type"] for node in nodes] == ["Supervisor", "Worker"]
    assert nodes[0]["gpu_count"] == await get(empty, "/v1/cluster/devices")
    detailed = {"cpu_available", "cpu_count", "mem_used", "mem_available", "mem_total", "gpu_vram_available"}
    assert not detailed & set(nodes[0])
    assert detailed <= set((await get(empty, "/v1/cluster/info", detailed=True))[0])


async def test_families_are_told_by_what_they_can_do(empty: httpx2.AsyncClient) -> None:
    families = await get(empty, "/v1/models/families")
    assert "llama-2-chat" in families["chat"] and "llama-2-chat" not in families["tools"]
    assert "llama-2" in families["generate"] and "bge-m3" not in str(families)
    assert "llama-2-chat" in (await get(empty, "/v1/models/vllm-supported"))["chat"]
    prompts = await get(empty, "/v1/models/prompts")
    assert "[INST]" in prompts["llama-2-chat"]["chat_template"]


async def test_every_version_says_whether_it_is_here(empty: httpx2.AsyncClient) -> None:
    versions = await get(empty, "/v1/models/llm/LLAMA-2-chat/versions")
    assert {
        "model_version": "llama-2-chat--7B--ggufv2--Q4_K_M",
        "model_file_location": None,
        "cache_status": False,
        "quantization": "Q4_K_M",
        "model_format": "ggufv2",
        "model_size_in_billions": 7,
    } in versions
    assert len({version["model_version"] for version in versions}) == len(versions) >= 15


async def test_engines_are_told_on_both_paths(empty: httpx2.AsyncClient) -> None:
    engines = await get(empty, "/v1/engines/llama-2-chat")
    assert engines == await get(empty, "/v1/engines/LLM/llama-2-chat", enable_virtual_env=True)
    assert {"model_name", "model_format", "model_size_in_billions", "quantizations"} == set(engines["llama.cpp"][0])
    assert isinstance(engines["SGLang"], str | list)
    assert all(row["ok"] or row["reason"] for row in await get(empty, "/v1/engines/llama-2-chat", detailed=True))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/engines/nope",
        "/v1/engines/LLM/bge-m3",
        "/v1/models/LLM/nope/versions",
        "/v1/models/nope",
        "/v1/models/nope/replicas",
        "/v1/models/nope/events",
        "/v1/models/nope/logs",
        "/v1/cache/models?model_name=nope",
        "/v1/cache/models/files?model_version=nope",
    ],
)
async def test_what_is_not_there_is_a_404_that_says_so(empty: httpx2.AsyncClient, path: str) -> None:
    answer = await empty.get(path)
    assert answer.status_code == 404, answer.text
    assert "nope" in answer.json()["detail"] or "bge-m3" in answer.json()["detail"]
    assert answer.json()["problem"]["hint"]


async def test_the_progress_of_an_unknown_launch_is_nothing_and_it_can_not_be_cancelled(
    empty: httpx2.AsyncClient,
) -> None:
    assert await get(empty, "/v1/models/nope/progress") == {
        "progress": 0.0,
        "stage": "pending",
        "download_files": [],
        "replicas": [],
    }
    assert (await empty.post("/v1/models/nope/cancel")).status_code == 404


async def test_a_version_that_is_launched_by_name_must_have_four_parts(empty: httpx2.AsyncClient) -> None:
    answer = await empty.post("/v1/models/instance", json={"model_version": "llama-2-chat--7B--ggufv2"})
    assert (answer.status_code, "NAME--SIZEB" in answer.json()["detail"]) == (400, True)
    answer = await empty.post("/v1/models/instance", json={"model_version": "llama-2-chat--7B--ggufv2--Q9_Z"})
    assert "has no quantization Q9_Z" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "way_out"),
    [
        ("POST", "/v1/launch_history", "xinference launch"),
        ("DELETE", "/v1/launch_history/some-model", "xinference terminate"),
        ("DELETE", "/v1/launch_history/some-model/some/uid", "xinference terminate"),
        ("DELETE", "/v1/virtualenvs", "xinference env remove"),
        ("POST", "/v1/supervisor/relaunch", "xinference serve"),
        ("GET", "/v1/worker-relaunches/o", "xinference serve"),
    ],
)
async def test_an_unsupported_route_names_the_alternative(
    empty: httpx2.AsyncClient, method: str, path: str, way_out: str
) -> None:
    answer = await empty.request(method, path)
    assert answer.status_code == 501, answer.text
    assert way_out in answer.json()["problem"]["hint"]
