"""LoRA adapters through the whole of it: two at once, each asked for as a model of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.lora_writer import write_lora
from tests.live.test_engines import CONTEXT_OPTION, HF, START_SECONDS
from tests.support.built_environments import require_environment
from tests.support.home import Home, sse_events

ENGINES = ("Transformers", "vLLM")
UID, FIRST, SECOND = "tiny", "first", "second"
TINY = ("-n", "llama-2-chat", "-s", "7", "-f", "pytorch", "-q", "none", "--model-path", str(HF))

pytestmark = pytest.mark.timeout(START_SECONDS + 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the adapters lie, by their names."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate((FIRST, SECOND)):
        write_lora(folder / name, HF, scale=0.2, seed=seed)
    return folder


@pytest.fixture(scope="module", params=ENGINES)
def home(request: pytest.FixtureRequest, make_home: Callable[..., Home], folder: Path) -> Iterator[Home]:
    engine: str = request.param
    home = make_home()
    require_environment(home.path, engine)
    home.serve()
    adapters = [word for name in (FIRST, SECOND) for word in ("-lm", name, str(folder / name))]
    context = (CONTEXT_OPTION[engine], "400")
    launched = home.cli("launch", *TINY, "-en", engine, "-u", UID, *context, *adapters, seconds=START_SECONDS)
    assert launched.returncode == 0, launched.stderr
    yield home
    home.cli("stop")


def ask(home: Home, model: str, **fields: Any) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
    return httpx2.post(f"{home.url}/v1/chat/completions", json=body | {"max_tokens": 4} | fields, timeout=120)


def first_logprobs(home: Home, model: str) -> list[float]:
    """The likeliest first tokens' logprobs, best first."""
    answer = ask(home, model, logprobs=True, top_logprobs=5)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == model
    return [token["logprob"] for token in answer.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]]


def test_each_adapter_answers_under_its_own_name_with_its_own_logprobs(home: Home) -> None:
    plain, first, second = (first_logprobs(home, name) for name in (UID, FIRST, SECOND))
    for one, other in ((plain, first), (plain, second), (first, second)):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.01
    assert first_logprobs(home, UID) == pytest.approx(plain, abs=1e-4)


def test_a_stream_of_an_adapter_names_it(home: Home) -> None:
    events = sse_events(ask(home, FIRST, stream=True).text)
    assert events[-1] == "[DONE]" and {event["model"] for event in events[:-1]} == {FIRST}


def test_adapters_are_listed_with_the_model_that_they_adapt(home: Home) -> None:
    listed = httpx2.get(f"{home.url}/v1/models", timeout=10).json()["data"]
    assert {model["id"]: model.get("parent") for model in listed} == {UID: None, FIRST: UID, SECOND: UID}


@pytest.mark.parametrize(("uid", "adapter"), [("other", UID), ("other", FIRST), (FIRST, "third")])
def test_a_launch_whose_name_is_taken_is_a_409(home: Home, folder: Path, uid: str, adapter: str) -> None:
    refused = home.launch(
        model_name="llama-2-chat",
        model_engine=ENGINES[0],
        model_format="pytorch",
        model_path=str(HF),
        model_uid=uid,
        peft_model_config={"lora_list": [{"lora_name": adapter, "local_path": str(folder / FIRST)}]},
    )
    assert refused.status_code == 409, refused.text
    assert "taken by" in refused.text


def test_an_adapter_that_is_not_there_is_a_400_that_names_its_path(home: Home, folder: Path) -> None:
    missing = str(folder / "missing")
    refused = home.cli("launch", *TINY, "-en", ENGINES[0], "-u", "other", "-lm", "third", missing)
    assert refused.returncode == 1 and missing in refused.stderr


def test_an_adapter_of_another_base_model_is_refused_with_both_names(home: Home, tmp_path: Path) -> None:
    config = json.loads((HF / "config.json").read_text(encoding="utf-8"))
    base = tmp_path / "larger-llama"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": 2 * config["hidden_size"]}), encoding="utf-8")
    adapter = write_lora(tmp_path / "third", base, scale=0.2)
    for way in ((), ("--dry-run",)):
        refused = home.cli("launch", *TINY, "-en", ENGINES[0], "-u", "other", "-lm", "third", str(adapter), *way)
        assert refused.returncode == 1, refused.stderr
        assert "larger-llama, and does not fit llama-2-chat: its hidden size is" in " ".join(refused.stderr.split())
