"""A fifth engine is one folder and one line: everything else takes it as it takes the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.engines.plans import host_of
from tests.fakes.fifth_engine.dialect import NAME
from tests.fakes.fifth_engine.engine import FifthEngine
from tests.formats.gguf_model import write_gguf
from tests.support.home import Home
from tests.support.polling import until
from tests.support.ports import free_port
from xinference.catalog.registry import builtin_families
from xinference.engines import registry
from xinference.engines.replica_placement import Placement
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.local_commands import docs
from xinference.planning.facts import Facts
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.plan import draft_launch, resolve_launch
from xinference.planning.sizing import size_launch
from xinference.units import GIB, MIB

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
SHAPE = ModelShape(weights_bytes=4 * GIB, kv_bytes_per_token=1024, trained_context=4096, vocab_size=32000)
REQUEST = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", model_engine="fifth")


@pytest.fixture(autouse=True)
def fifth(monkeypatch: pytest.MonkeyPatch) -> FifthEngine:
    engine = FifthEngine()
    monkeypatch.setattr(registry, "ENGINES", (*registry.ENGINES, engine))
    return engine


def plan(request: LaunchRequest = REQUEST, host: Host | None = None) -> SizedPlan:
    host = host or host_of()
    draft = draft_launch(Facts(builtin_families(), registry.all_engines(), host), request, "mine")
    engine = registry.all_engines()[draft.engine]
    launch = resolve_launch(draft, Path("/w.gguf"), "given", engine)
    return size_launch(launch, Path("/w.gguf"), SHAPE, available(host, Occupancy()), engine.memory)


def test_it_is_chosen_by_its_name_and_its_options_are_completed_by_itself() -> None:
    made = plan()
    assert (made.engine, made.request.model_engine) == (NAME, NAME)
    assert "the fifth engine takes all options as they are" in made.reasons


def test_a_format_that_it_does_not_take_is_refused_with_its_table() -> None:
    with pytest.raises(Problem, match="Fifth runs ggufv2, not pytorch"):
        plan(LaunchRequest(model_name="llama-2-chat", model_format="pytorch", model_engine=NAME))


def test_its_memory_model_decides_context_slots_and_bytes() -> None:
    sizing = plan().sizing
    assert (sizing.context_length, sizing.slots, sizing.overhead_bytes) == (4095, 2, 20 * MIB)
    request = LaunchRequest(
        model_name="llama-2-chat", model_format="ggufv2", model_engine=NAME, options={"window": 1001, "lanes": 1}
    )
    asked = plan(request).sizing
    assert (asked.context_length, asked.slots) == (1000, 1)


def test_it_is_placed_on_devices_and_its_command_is_built_for_them(fifth: FifthEngine) -> None:
    made = plan(host=host_of(gpus=2))
    assert made.devices == ((0,),) and made.sizing.overhead_bytes == 300 * MIB
    command = fifth.command(made, "secret", Placement(Path(sys.executable), made.devices_of(0)))
    assert command.env["CUDA_VISIBLE_DEVICES"] == "0" and "secret" not in " ".join(command.argv)


def test_it_is_among_the_engines_of_a_models_page() -> None:
    assert NAME in docs.supporters(builtin_families()["llama-2-chat"])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, free_port())
    program = [sys.executable, "-m", "tests.fakes.fifth_engine.server"]
    with (tmp_path / "server.log").open("ab") as log:
        subprocess.Popen(program, cwd=ROOT, env=home.environment, stdout=log, stderr=log, start_new_session=True)
    until("the server answers", home.answers)
    yield home
    home.clean_up()


@pytest.mark.live
def test_a_server_launches_it_and_answers_a_chat(home: Home, tmp_path: Path) -> None:
    weights = write_gguf(TINY, "Q8_0", tmp_path / "tiny.gguf")
    launched = home.launch(
        model_name="llama-2-chat",
        model_format="ggufv2",
        quantization="Q8_0",
        model_engine=NAME,
        model_path=str(weights),
        script={"chunks": 2, "text": "fifth "},
    )
    assert launched.status_code == 200, launched.text
    uid = launched.json()["model_uid"]
    assert home.instance(uid)["model_engine"] == NAME
    answer = home.chat(model=uid)
    assert answer.json()["choices"][0]["message"]["content"] == "Fifth Fifth "
    assert NAME in httpx2.get(f"{home.url}/v1/engines/llama-2-chat", timeout=10).json()
