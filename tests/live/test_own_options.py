"""Xinference's own options of a launch on llama.cpp: each starts, or is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.home import Home

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Home:
    home = make_home()
    home.serve()
    return home


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_gguf(HF, "Q8_0", tmp_path_factory.mktemp("tiny") / "tiny.gguf"))


@pytest.fixture
def launch(home: Home, gguf: str) -> Callable[..., httpx2.Response]:
    """Launches the tiny model with these options, in place of an earlier one."""

    def run(**options: Any) -> httpx2.Response:
        httpx2.delete(f"{home.url}/v1/models/tiny", timeout=60)
        named = {"model_name": "llama-2-chat", "model_uid": "tiny", "model_format": "ggufv2", "model_path": gguf}
        return home.launch(**named, **options)

    return run


def chat(home: Home) -> str:
    answer = home.chat(model="tiny", max_tokens=16, temperature=0)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


@pytest.mark.parametrize(
    "options",
    [
        {"speculative.types": ["NGRAM_SIMPLE"]},
        {"speculative.types": "ngram-map-k,ngram-mod"},
        {"speculative.types": ["NGRAM_MAP_K4V"]},
        {"speculative.types": ["NGRAM_CACHE"]},
        {"speculative.types": ["DRAFT_SIMPLE"], "num_speculative_tokens": 2},
    ],
    ids=str,
)
def test_each_kind_of_speculation_starts_and_answers_as_without(
    home: Home, launch: Callable[..., httpx2.Response], gguf: str, options: dict[str, Any]
) -> None:
    assert launch(context_length=256).status_code == 200
    plain = chat(home)
    draft = {"draft_model_path": gguf} if "DRAFT_SIMPLE" in options["speculative.types"] else {}
    launched = launch(context_length=256, **options, **draft)
    assert launched.status_code == 200, launched.text
    assert chat(home) == plain


@pytest.mark.parametrize("options", [{"enable_mtp": True}, {}], ids=["own layers", "draft model"])
def test_a_model_without_layers_for_a_draft_is_explained(
    launch: Callable[..., httpx2.Response], gguf: str, options: dict[str, Any]
) -> None:
    failed = launch(**options or {"draft_model_path": gguf})
    assert failed.status_code >= 400
    problem = failed.json()["problem"]
    assert "no layers for MTP" in f"{problem['cause']} {problem['hint']}", problem


def test_a_draft_model_of_another_kind_is_refused_before_the_start(
    launch: Callable[..., httpx2.Response], gguf: str
) -> None:
    failed = launch(draft_model_path=gguf, **{"speculative.types": ["DRAFT_DFLASH"]})
    assert (failed.status_code, failed.json()["problem"]["code"]) == (400, "bad_weight_file"), failed.text
    assert "DRAFT_SIMPLE" in failed.json()["problem"]["hint"]


def test_the_context_is_that_of_each_slot(home: Home, launch: Callable[..., httpx2.Response]) -> None:
    assert launch(context_length=200, n_parallel=2).status_code == 200
    assert home.instance("tiny")["context_length"] == 200


def test_a_device_that_is_not_there_is_explained(launch: Callable[..., httpx2.Response]) -> None:
    failed = launch(mmproj_device="NPU7")
    assert failed.status_code >= 400
    problem = failed.json()["problem"]
    assert "llama.cpp does not take 'NPU7' for --mmproj_device" in f"{problem['cause']} {problem['hint']}", problem
