"""A launch goes from phase to phase, and each decision is made once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from tests.fakes.fifth_engine.engine import FifthEngine
from tests.formats.gguf_model import write_gguf
from tests.formats.mmproj_writer import write_mmproj
from xinference.catalog.models import ModelVersion, Source
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.planned_launch import planned_entry
from xinference.deployments.deployment import Deployment
from xinference.engines import registry
from xinference.engines.llama_cpp.projector import OPTION
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hubs.base import FetchPreview
from xinference.launch.plan import SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning import plan as planning
from xinference.store.database import Store

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
REQUEST = LaunchRequest(
    model_name="llama-2-chat",
    model_format="ggufv2",
    quantization="Q8_0",
    model_engine="Fifth",
    download_hub="huggingface",
)


class Hub:
    """A hub that has nothing, or one file in its cache."""

    path: Path | None = None

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        return self.path

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        raise Problem(Code.OFFLINE, "No hub can be reached.")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(TINY, "Q8_0", tmp_path_factory.mktemp("weights") / "tiny.gguf")


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The uids whose deployments began; nothing is started."""
    uids: list[str] = []

    def begin(deployment: Deployment) -> asyncio.Future[int]:
        uids.append(deployment.uid)
        adopted = asyncio.get_running_loop().create_future()
        adopted.set_result(0)
        return adopted

    monkeypatch.setattr(Deployment, "begin", begin)
    return uids


@pytest.fixture
def controller(tmp_path: Path, hub: Hub, begun: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    monkeypatch.setattr(registry, "ENGINES", (*registry.ENGINES, FifthEngine()))
    hubs = MappingProxyType(dict.fromkeys(("huggingface", "modelscope"), hub))
    monkeypatch.setattr("xinference.control.controller.all_hubs", lambda settings: hubs)
    store = Store(tmp_path / "x.db")
    yield Controller(Settings(home=tmp_path, offline=True), store)
    store.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each decision of a draft was made."""
    counted: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        decide = getattr(planning, name)

        def call(*arguments: Any) -> Any:
            counted[name] += 1
            return decide(*arguments)

        return call

    for name in ("check_request", "choose_version"):
        monkeypatch.setattr(planning, name, counting(name))
    return counted


ONCE = {"check_request": 1, "choose_version": 1}


async def test_a_launch_whose_weights_are_not_here_decides_once_and_is_not_sized(
    controller: Controller, calls: Counter[str], begun: list[str]
) -> None:
    uid = (await controller.launch(REQUEST)).uid
    assert calls == ONCE and begun == [uid]
    assert not isinstance(controller.running(uid).plan, SizedPlan)


async def test_a_launch_whose_weights_are_cached_decides_once_and_is_sized(
    controller: Controller, calls: Counter[str], hub: Hub, weights: Path
) -> None:
    hub.path = weights
    plan = controller.running((await controller.launch(REQUEST)).uid).plan
    assert calls == ONCE
    assert isinstance(plan, SizedPlan) and (plan.path, plan.sizing.slots) == (weights, 2)


async def test_a_dry_run_decides_once_and_starts_nothing(
    controller: Controller, calls: Counter[str], begun: list[str], hub: Hub, weights: Path
) -> None:
    hub.path = weights
    entry = planned_entry(await controller.plan(REQUEST))
    assert calls == ONCE and begun == [] and controller.deployments() == []
    assert (entry["engine"], entry["hub"], entry["path"], entry["slots"]) == ("Fifth", "huggingface", str(weights), 2)
    assert any("huggingface" in reason for reason in entry["reasons"])


async def test_a_second_launch_of_what_runs_decides_once_and_asks_no_hub(
    controller: Controller, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = msgspec.structs.replace(REQUEST, model_uid="mine")
    await controller.launch(request)
    calls.clear()
    monkeypatch.setattr(controller.planner.hub_chooser, "choose", None)
    assert (await controller.launch(msgspec.structs.replace(request, download_hub=None))).uid == "mine"
    assert calls == ONCE
    with pytest.raises(Problem, match="replica: 1, and 2 in this launch"):
        await controller.launch(msgspec.structs.replace(request, replica=2))


async def test_what_can_not_fit_is_refused_before_anything_is_stored(
    controller: Controller, begun: list[str], hub: Hub, weights: Path
) -> None:
    hub.path = weights
    with pytest.raises(Problem) as caught:
        await controller.launch(msgspec.structs.replace(REQUEST, options={"window": 100, "lanes": 1 << 40}))
    assert caught.value.code == "does_not_fit" and begun == [] and controller.deployments() == []


async def test_a_row_of_an_earlier_release_is_taken_up(controller: Controller, begun: list[str]) -> None:
    row = '{"model_name":"llama-2-chat","model_format":"ggufv2","quantization":"Q8_0","model_engine":"Fifth"}'
    controller._store.add_deployment("old", row)
    await controller.start()
    assert begun == ["old"]
    assert controller.running("old").plan.request.replica == 1
    await controller.close("detach")


async def test_the_server_answers_only_once_it_knows_what_an_earlier_one_left_running(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = '{"model_name":"llama-2-chat","model_format":"ggufv2","quantization":"Q8_0","model_engine":"Fifth"}'
    controller._store.add_deployment("old", row)
    adopted = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    def begin(deployment: Deployment) -> asyncio.Future[int]:
        begun.set()
        return adopted

    monkeypatch.setattr(Deployment, "begin", begin)
    start = asyncio.create_task(controller.start())
    await begun.wait()
    await asyncio.sleep(0)
    assert not start.done()
    adopted.set_result(1)
    await start
    await controller.close("detach")


async def test_a_projectors_bytes_count_as_weights(controller: Controller, weights: Path, tmp_path: Path) -> None:
    request = msgspec.structs.replace(
        REQUEST, model_engine="llama.cpp", model_path=str(weights), download_hub=None, n_gpu=None
    )
    draft = await controller.planner.draft(request, "mine")
    launch = await controller.planner.resolve(draft, request)
    projector = write_mmproj(tmp_path / "mmproj.gguf", 64)
    seeing = dataclasses.replace(launch, options={OPTION: str(projector)})
    alone, both = await controller.planner.size(launch), await controller.planner.size(seeing)
    assert alone is not None and both is not None
    assert both.sizing.weights_bytes - alone.sizing.weights_bytes == projector.stat().st_size


async def test_a_folder_of_several_models_is_refused_where_the_request_names_no_quantization(
    controller: Controller, weights: Path
) -> None:
    folder = weights.parent
    (folder / "b-Q4_0.gguf").write_bytes(weights.read_bytes())
    request = LaunchRequest(
        model_name="llama-2-chat", model_format="ggufv2", model_engine="Fifth", model_path=str(folder)
    )
    draft = await controller.planner.draft(request, "mine")
    with pytest.raises(Problem, match="has several models"):
        await controller.planner.resolve(draft, request)
