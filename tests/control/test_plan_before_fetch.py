"""What can't fit is refused before a byte of its weights moves, and what fits is planned from headers alone."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from tests.engines.plans import host_of
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import Content, Padded, repository
from tests.formats.lora_writer import write_lora
from tests.weights.real_sizes import config_json, gguf_file
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.planned_launch import planned_entry
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem
from xinference.hubs import reachability
from xinference.launch.match import match
from xinference.launch.plan import ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.local_commands.plan import plan_launch
from xinference.store.database import Store

GIB = 1024**3
REPOSITORY = "TheBloke/Llama-2-7B-Chat-GGUF"
REQUEST = LaunchRequest(
    model_name="llama-2-chat",
    model_size_in_billions=7,
    model_format="ggufv2",
    quantization="Q4_K_M",
    model_engine="llama.cpp",
    download_hub="huggingface",
)
VERSION = match(builtin_families(), REQUEST)
FILE = "llama-2-7b-chat.Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(reachability, "_answers", {})
    with serve(LoopbackHub()) as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        assert VERSION.spec.shape is not None
        put(hub, gguf_file(VERSION.spec.shape, 4096, "Q4_K_M"))
        yield hub


def put(hub: LoopbackHub, content: Content) -> None:
    hub.huggingface[REPOSITORY] = repository(REPOSITORY, {FILE: content}, ("main",))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    uids: list[str] = []

    def begin(deployment: Deployment) -> asyncio.Future[int]:
        uids.append(deployment.uid)
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Deployment, "begin", begin)
    return uids


@pytest.fixture
async def controller(tmp_path: Path, begun: list[str]) -> AsyncIterator[Controller]:
    store = Store(tmp_path / "home" / "xinference.db")
    yield Controller(Settings(home=tmp_path / "home"), store)
    store.close()


def memory(monkeypatch: pytest.MonkeyPatch, gib: float) -> None:
    host = replace(host_of(), memory_available=int(gib * GIB))
    monkeypatch.setattr("xinference.nodes.local.read_host", lambda: host)


async def test_a_launch_that_does_not_fit_is_refused_by_its_header(
    controller: Controller, hub: LoopbackHub, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 4)
    for launch in (controller.plan, controller.launch):
        with pytest.raises(Problem) as caught:
            await launch(REQUEST)
        problem = caught.value
        assert (problem.code, problem.status, problem.stage) == ("does_not_fit", 400, "plan")
        assert "needs 4,435 MiB of memory, and 4,096 MiB are free" in problem.cause
        assert problem.cause.endswith("The numbers are those of the file on the hub.")
        assert [s.change for s in problem.suggestions] == ["quantization"]
        assert problem.suggestions[0].command.startswith("xinference launch llama-2-chat -s 7B -f ggufv2 -q ")
        assert f"What would fit: `{problem.suggestions[0].command}`" in str(problem)
        assert Problem.from_dict(json.loads(json.dumps(problem.to_dict()))).suggestions == problem.suggestions
    assert begun == [] and controller.deployments() == []
    assert_only_headers(hub)


def assert_only_headers(hub: LoopbackHub) -> None:
    fetched = hub.counters.of(FILE)
    assert fetched and all(range.startswith("bytes=") for _, _, range in fetched)
    assert hub.counters.sent[FILE] < 2 << 20


async def test_a_launch_that_fits_is_planned_by_its_header_and_its_disk(
    controller: Controller, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100 * GIB))
    entry = planned_entry(await controller.plan(REQUEST))
    size = len(hub.huggingface[REPOSITORY].files[FILE].data)
    assert entry["memory"]["source"] == "file header" and entry["context_length"] == 4095
    assert entry["memory"]["weights"] == pytest.approx(size, rel=0.001)
    assert entry["download_bytes"] == size and entry["path"] is None
    assert entry["files"] == [{"name": FILE, "size": size}]
    assert (entry["files_bytes"], entry["files_source"]) == (size, "hub")
    [need] = entry["disk"]
    assert (need["purpose"], need["needed_bytes"], need["free_bytes"]) == ("download", size, 100 * GIB)
    assert_only_headers(hub)


async def test_a_disk_that_is_too_small_is_refused_before_the_download(
    controller: Controller, hub: LoopbackHub, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3 * GIB))
    with pytest.raises(Problem) as caught:
        await controller.launch(REQUEST)
    assert (caught.value.code, caught.value.status) == ("disk_full", 507)
    assert "needs 3.8 GiB for the download on the disk of" in caught.value.cause
    assert "3.0 GiB are free" in caught.value.cause
    assert [s.change for s in caught.value.suggestions] == ["quantization"]
    assert begun == []
    assert_only_headers(hub)


async def test_a_converted_copy_counts_on_the_disk(
    controller: Controller, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=6 * GIB))
    hub.huggingface.clear()
    with pytest.raises(Problem) as caught:
        await controller.plan(LaunchRequest(model_name="llama-2-chat", model_format="ggmlv3", quantization="q8_0"))
    assert "6.7 GiB for the conversion" in caught.value.cause


async def test_a_hub_without_an_answer_is_replaced_by_the_registry(
    controller: Controller, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    hub.huggingface.clear()
    entry = planned_entry(await controller.plan(REQUEST))
    assert entry["memory"]["source"] == "registry" and entry["download_bytes"] is None
    assert any("the header of the weights can't be read" in reason for reason in entry["reasons"])
    assert entry["files"] == [{"name": FILE, "size": None}] and entry["files_source"] == "estimate"
    assert entry["files_bytes"] == pytest.approx(3.8 * GIB, rel=0.02)


@pytest.mark.process
async def test_a_model_without_a_shape_is_a_rough_estimate_that_is_refused_only_for_its_weights(
    controller: Controller, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.huggingface.clear()
    known = builtin_families()["gpt-oss"]
    specs = tuple(msgspec.structs.replace(spec, shape=None) for spec in known.model_specs)
    family = msgspec.structs.replace(known, model_specs=specs)
    request = LaunchRequest(
        model_name="gpt-oss", model_format="ggufv2", family=family, options={"n_ctx": 100000}, n_gpu=None
    )
    memory(monkeypatch, 16)
    entry = planned_entry(await controller.plan(request))
    assert entry["memory"]["source"] == "estimate" and entry["context_length"] is None
    assert any("rough estimate" in reason for reason in entry["reasons"])
    memory(monkeypatch, 4)
    with pytest.raises(Problem) as caught:
        await controller.plan(request)
    assert caught.value.code == "does_not_fit" and "rough estimate" in caught.value.cause


@pytest.mark.process
async def test_the_memory_of_a_model_of_unknown_size_is_not_known_in_place_of_too_small(
    controller: Controller, hub: LoopbackHub
) -> None:
    hub.huggingface.clear()
    known = builtin_families()["gpt-oss"]
    specs = tuple(
        msgspec.structs.replace(spec, shape=None, weights_bytes={}, model_size_in_billions=0)
        for spec in known.model_specs
    )
    family = msgspec.structs.replace(known, model_specs=specs)
    request = LaunchRequest(model_name="gpt-oss", model_format="ggufv2", family=family, n_gpu=None)
    entry = planned_entry(await controller.plan(request))
    assert entry["memory"]["total"] is None
    assert any("no size of this model" in reason for reason in entry["reasons"])


async def test_a_launch_says_what_it_expects_before_the_download(
    controller: Controller, hub: LoopbackHub, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100 * GIB))
    uid = (await controller.launch(REQUEST)).uid
    plan = controller.running(uid).plan
    assert begun == [uid] and isinstance(plan, ResolvedLaunch)
    assert re.fullmatch(r"[\d.]+ GiB of memory, 3\.8 GiB to download", plan.draft.choices[-1])


async def test_an_absurd_header_is_refused_within_bounded_bytes(
    controller: Controller, hub: LoopbackHub, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    endless = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (1 << 60).to_bytes(8, "little")
    for content in (Padded(endless, 5 * GIB), Padded(b"", 5 * GIB), b"<html>"):
        put(hub, content)
        hub.counters.sent.clear()
        with pytest.raises(Problem) as caught:
            await controller.launch(REQUEST)
        assert caught.value.code == "bad_weight_file"
        assert hub.counters.sent[FILE] < 1 << 20
    assert begun == []


async def test_a_folder_is_planned_by_its_configuration_and_its_list_of_files(
    controller: Controller, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 64)
    request = LaunchRequest(
        model_name="llama-2-chat", model_format="pytorch", model_engine="Transformers", download_hub="huggingface"
    )
    version = match(builtin_families(), request)
    assert version.spec.shape is not None
    files: dict[str, Content] = {
        "config.json": config_json(version.spec.shape, 4096, version),
        "model.safetensors": Padded(b"", version.spec.shape.parameters * 2),
    }
    source = version.spec.sources[0]
    hub.huggingface[source.model_id] = repository(source.model_id, files, ("main", source.revision or "main"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100 * GIB))
    entry = planned_entry(await controller.plan(request))
    assert entry["memory"]["source"] == "file header" and entry["context_length"] == 4095
    assert {need["purpose"] for need in entry["disk"]} == {"download", "environment"}
    assert "model.safetensors" not in hub.counters.sent
    assert not (tmp_path / "huggingface").exists(), "nothing is stored"


@pytest.mark.process
def test_a_dry_run_without_a_server_says_what_a_server_would_load_and_changes_nothing(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100 * GIB))
    settings = Settings(home=tmp_path / "home")
    store = Store(settings.home / "xinference.db")
    remembered = msgspec.structs.replace(REQUEST, model_uid="earlier", options={"n_ctx": 2048, "n_parallel": 1})
    store.add_deployment("earlier", msgspec.json.encode(remembered).decode())
    store.add_deployment("broken", "no request")
    store.add_deployment("seldom", msgspec.json.encode(msgspec.structs.replace(REQUEST, on_demand=True)).decode())
    rows = store.deployments()
    store.close()
    named = {"model_name": "llama-2-chat", "model_format": "ggufv2", "quantization": "Q4_K_M"}
    body = {**named, "download_hub": "huggingface"}
    entry = plan_launch({**body, "n_ctx": 512, "n_parallel": 1, "worker_ip": "box9"}, settings)
    assert entry["warnings"] == ["worker_ip box9 is ignored: this server has no cluster"]
    [model] = entry["models_of_home"]
    assert model["model_uid"] == "earlier" and 5 * GIB < model["memory_bytes"] < 6 * GIB
    assert entry["memory"]["source"] == "file header" and entry["model_uid"] == "llama-2-chat"
    with pytest.raises(Problem, match="are free") as caught:
        plan_launch({**body, "n_ctx": 4096, "n_parallel": 4}, settings)
    assert "unload" not in [s.change for s in caught.value.suggestions]
    assert_only_headers(hub)
    same = plan_launch({**body, "n_ctx": 2048, "n_parallel": 1}, settings)
    assert (same["model_uid"], same["found"]) == ("earlier", "stored") and same["memory"]["total"] > 5 * GIB
    assert same["problem_of_copy"] is None and same["plan_of_copy"]["model_uid"] == "llama-2-chat"
    full = plan_launch({**body, "n_ctx": 2048, "n_parallel": 1, "model_uid": "earlier", "new": True}, settings)
    assert full["model_uid"].startswith("earlier-") and full["found"] is full["plan_of_copy"] is None
    with pytest.raises(Problem, match="n_ctx: 2048, and 512 in this launch"):
        plan_launch({**body, "n_ctx": 512, "n_parallel": 1, "model_uid": "earlier"}, settings)
    store = Store(settings.home / "xinference.db")
    assert store.deployments() == rows
    store.close()
    assert not (settings.home / "run").exists()


def test_a_dry_run_in_an_empty_home_makes_no_database(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 12)
    settings = Settings(home=tmp_path / "home")
    entry = plan_launch({"model_name": "llama-2-chat", "model_format": "ggufv2", "quantization": "Q4_K_M"}, settings)
    assert entry["models_of_home"] == [] and not (settings.home / "xinference.db").exists()
    with pytest.raises(Problem, match="replica"):
        plan_launch({"model_name": "llama-2-chat", "replica": "many"}, settings)


@pytest.mark.parametrize("engine", ["vLLM", "Transformers"])
async def test_an_adapter_of_another_model_is_refused_before_a_download_also_without_the_header(
    controller: Controller, begun: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """No hub answers, so the sizes of the model are those of the registry."""
    memory(monkeypatch, 64)
    monkeypatch.setattr(reachability, "_answers", {})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    base = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
    adapter = write_lora(tmp_path / "adapter", base, scale=0.2)
    request = LaunchRequest(
        model_name="llama-2-chat",
        model_size_in_billions=7,
        model_format="pytorch",
        quantization="none",
        model_engine=engine,
        download_hub="huggingface",
        options={"lora_modules": [{"small": str(adapter)}]},
    )
    for launch in (controller.plan, controller.launch):
        with pytest.raises(Problem) as caught:
            await launch(request)
        assert caught.value.code == "bad_weight_file"
        assert "its hidden size is 256, and that of llama-2-chat is 4096" in caught.value.cause
    assert begun == [] and controller.deployments() == []
