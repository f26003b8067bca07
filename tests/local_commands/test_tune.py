"""`xinference tune` without a measurement: the changes that it tries, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.launch.tuning import Tuning
from xinference.launch.tuning_file import read_tunings, write_tunings
from xinference.local_commands.speed_comparison import Comparison
from xinference.local_commands.tune import Bench, forget, tune

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"
SMALL, LARGE = "qwen2.5-instruct--0_5B--ggufv2--q4_k_m", "qwen2.5-instruct--7B--ggufv2--Q8_0"

pytestmark = pytest.mark.process


def run(tmp_path: Path) -> list[str]:
    body = {
        "model_name": "llama-2-chat",
        "model_format": "ggufv2",
        "model_size_in_billions": 7,
        "quantization": "Q8_0",
        "model_engine": "llama.cpp",
        "model_path": str(write_gguf(HF, "Q8_0", tmp_path / "tiny.gguf")),
    }
    said: list[str] = []
    tune(body, minutes=1, any_answers=True, report=said.append, settings=Settings(home=tmp_path / "home"))
    return said


def test_the_engine_is_asked_once_for_the_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def changes(self: LlamaCpp, host: object, slots: int, *, any_answers: bool) -> Any:
        asked.append(any_answers)
        return [[{"n_ubatch": 64}], [{"n_parallel": 2}]]

    monkeypatch.setattr(LlamaCpp, "option_changes", changes)
    monkeypatch.setattr(Bench, "compare", lambda *_: None)
    assert run(tmp_path) == ["trying n_ubatch 64", "trying n_parallel 2"]
    assert asked == [True]


def test_an_engine_without_changes_is_refused_by_the_names_of_those_that_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changes(self: LlamaCpp, host: object, slots: int, *, any_answers: bool) -> Any:
        return [] if any_answers else [[{"n_ubatch": 64}]]

    monkeypatch.setattr(LlamaCpp, "option_changes", changes)
    with pytest.raises(Problem) as refused:
        run(tmp_path)
    assert refused.value.hint == "Name an LLM that runs on llama.cpp: `xinference engine MODEL` lists the engines."


def test_a_gain_of_too_few_rounds_fails_and_leaves_what_was_measured_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaCpp, "option_changes", lambda *_, **__: [[{"n_ubatch": 64}]])
    rounds = [{"prefill": 1.5}] * 5
    monkeypatch.setattr(Bench, "compare", lambda *_: Comparison(rounds))
    run(tmp_path)
    before = read_tunings(tmp_path / "home")
    assert before[0].options == {"n_ubatch": 64}
    del rounds[1:]
    with pytest.raises(Problem, match="--minutes 1 is too short: options were faster"):
        run(tmp_path)
    assert read_tunings(tmp_path / "home") == before


@in_one_test(
    ("name", "gone"),
    [
        ("qwen2.5-instruct", [SMALL, LARGE]),
        ("Qwen2.5-Instruct", [SMALL, LARGE]),
        ("qwen2.5-instruct:0.5b", [SMALL]),
        ("qwen2.5-instruct:q8_0", [LARGE]),
        (LARGE, [LARGE]),
        ("qwen2.5-instruct:7b-q4_k_m", []),
        ("qwen2.5", []),
    ],
)
def test_measurements_are_forgotten_by_every_name_of_a_launch(tmp_path: Path, name: str, gone: list[str]) -> None:
    write_tunings(tmp_path, [Tuning(each, "llama.cpp", "1", "m", {}, {}) for each in (SMALL, LARGE)])
    assert forget(name, Settings(home=tmp_path)) == gone
    assert [each.version_id for each in read_tunings(tmp_path)] == [each for each in (SMALL, LARGE) if each not in gone]
