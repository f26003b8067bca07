"""Models of the user's own, registered in either generation or only named, answer word for word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conformance.__main__ import ASSETS, answer, hub_environment
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.fakes.hub.repositories import repository
from tests.formats.gguf_model import write_gguf
from tests.support.home import Home
from tests.support.polling import until

PAIRS = json.loads((ASSETS / "qa.json").read_text(encoding="utf-8"))[:4]
FILE = {
    "model_format": "ggufv2",
    "model_size_in_billions": 1,
    "model_file_name_template": "tiny.{quantization}.gguf",
}
LLAMA_2 = {
    "style_name": "LLAMA2",
    "system_prompt": "",
    "roles": ["[INST]", "[/INST]"],
    "intra_message_sep": " ",
    "inter_message_sep": " </s><s>",
    "stop_token_ids": [2],
    "stop": ["</s>"],
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model in two quantizations."""
    folder = tmp_path_factory.mktemp("weights")
    for quantization in ("Q8_0", "Q4_0"):
        write_gguf(ASSETS, quantization, folder / f"tiny.{quantization}.gguf")
    return folder


@pytest.fixture(scope="module")
def hub(weights: Path) -> Iterator[LoopbackHub]:
    files: dict[str, Any] = {path.name: path for path in weights.iterdir()}
    with serve(LoopbackHub([repository("me/Tiny-GGUF", files, ("main", "v1"))])) as served:
        yield served


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home(**hub_environment(tmp_path_factory.mktemp("caches"), hub.url))
    home.serve()
    return home


def document(name: str, version: int, **spec: Any) -> dict[str, Any]:
    """A registration of the tiny model."""
    quantization: dict[str, Any] = {"quantizations": ["Q8_0", "Q4_0"]} if version == 1 else {"quantization": "Q8_0"}
    common = {
        "version": version,
        "context_length": 2048,
        "model_name": name,
        "model_lang": ["en"],
        "model_ability": ["chat"],
        "model_family": "other",
        "model_specs": [{**FILE, **quantization, **spec}],
    }
    return common | ({"prompt_style": LLAMA_2} if version == 1 else {"chat_template": "llama-2-chat"})


def register(home: Home, model: dict[str, Any], *, persist: bool = False) -> httpx2.Response:
    body = {"model": json.dumps(model), "persist": persist}
    return httpx2.post(f"{home.url}/v1/model_registrations/LLM", json=body, timeout=30)


def answers_word_for_word(home: Home, uid: str) -> None:
    assert [answer(home, pair["question"], uid) for pair in PAIRS] == [pair["answer"] for pair in PAIRS]


def _is_ready(home: Home, uid: str) -> bool:
    return bool(home.instance(uid)["status"] == "READY")


def terminate(home: Home, uid: str) -> None:
    assert httpx2.delete(f"{home.url}/v1/models/{uid}", timeout=30).status_code == 200


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("place", ["folder", "file", "hub"])
def test_a_registered_model_of_each_generation_launches_and_answers(
    home: Home, weights: Path, version: int, place: str
) -> None:
    name = f"tiny-{version}-{place}"
    where: dict[str, Any] = {
        "folder": {"model_uri": f"file://{weights}"},
        "file": {"model_uri": str(weights / "tiny.Q8_0.gguf")},
        "hub": {"model_id": "me/Tiny-GGUF", "model_hub": "huggingface", "model_revision": "v1"},
    }[place]
    assert register(home, document(name, version, **where)).status_code == 200
    launched = home.launch(model_name=name, model_engine="llama.cpp", quantization="q8_0")
    assert launched.status_code == 200, launched.text
    answers_word_for_word(home, name)
    used = httpx2.delete(f"{home.url}/v1/model_registrations/LLM/{name}")
    assert used.status_code == 409 and name in used.json()["detail"]
    terminate(home, name)
    assert httpx2.delete(f"{home.url}/v1/model_registrations/LLM/{name}").status_code == 200
    assert home.launch(model_name=name).status_code == 400


@pytest.mark.parametrize(
    ("words", "uid"),
    [
        (["--model-name", "{weights}/tiny.Q8_0.gguf"], "tiny.Q8_0"),
        (["--model-name", "{weights}", "--quantization", "q8_0", "--model-uid", "of-folder"], "of-folder"),
        (["--model-name", "mine", "--model-path", "{weights}/tiny.Q8_0.gguf"], "mine"),
        (["--model-name", "me/Tiny-GGUF", "--quantization", "Q8_0"], "Tiny-GGUF"),
        (["--model-name", "me/Tiny-GGUF/tiny.Q8_0.gguf@v1"], "tiny.Q8_0"),
    ],
)
def test_what_nobody_registered_is_launched_by_its_path_or_its_id_and_answers(
    home: Home, weights: Path, words: list[str], uid: str
) -> None:
    launched = home.cli("launch", *(word.format(weights=weights) for word in words))
    assert (launched.returncode, launched.stdout.strip()) == (0, uid), launched.stderr
    answers_word_for_word(home, uid)
    terminate(home, uid)


def test_the_plan_says_what_was_found_and_why(home: Home) -> None:
    dry = home.cli("launch", "--dry-run", "--model-name", "me/Tiny-GGUF", "--quantization", "Q4_0")
    assert dry.returncode == 0, dry.stderr
    unwrapped = " ".join(dry.stdout.split())
    for words in (
        "its fields are derived from its files",
        "type LLM: llama generates text",
        "abilities chat",
        "context 4096 tokens",
    ):
        assert words in unwrapped
    chosen = home.cli("launch", "--dry-run", "--model-name", "me/Tiny-GGUF")
    assert chosen.returncode == 0 and "quantization Q4_0: the nearest to Q4_K_M; others: Q8_0 (-q)" in chosen.stdout


def test_models_of_ones_own_are_still_there_after_a_restart_without_a_network(
    make_home: Callable[..., Home], hub: LoopbackHub, weights: Path, tmp_path: Path
) -> None:
    home = make_home(**hub_environment(tmp_path, hub.url))
    server = home.serve()
    assert register(home, document("kept", 2, model_uri=f"file://{weights}"), persist=True).status_code == 200
    assert register(home, document("passing", 2, model_uri=f"file://{weights}")).status_code == 200
    (home.path / "model" / "llm" / "broken.json").write_text("{")
    for fields in ({"model_name": "passing"}, {"model_name": "me/Tiny-GGUF", "quantization": "Q8_0"}):
        assert home.launch(**fields).status_code == 200
    # The engines end with the server here: they are started anew from what the rows say.
    httpx2.delete(f"{home.url}/v1/clusters", timeout=30)
    server.wait(30)
    home.env |= {"HF_HUB_OFFLINE": "1", "XINFERENCE_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    home.serve()
    for uid in ("passing", "Tiny-GGUF"):
        until(f"{uid} is ready again", partial(_is_ready, home, uid))
        answers_word_for_word(home, uid)
        terminate(home, uid)
    listed = httpx2.get(f"{home.url}/v1/model_registrations/LLM", timeout=30).json()
    mine = {entry["model_name"]: "problem" in entry for entry in listed if not entry["is_builtin"]}
    assert mine == {"broken": True, "kept": False}
    assert home.launch(model_name="kept").status_code == 200
    again = home.launch(model_name="me/Tiny-GGUF", quantization="Q8_0")
    assert again.status_code == 200, again.text
    answers_word_for_word(home, "kept")
