"""Drafts on the Transformers server: every answer is the one without drafts, and drafts are accepted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_transformers import QUESTIONS, TOOL
from tests.live.transformers_engine import UID, RunningEngine, engine, python_of_environment
from tests.support.polling import until
from xinference.engines.transformers.engine import PROGRAM

pytestmark = pytest.mark.timeout(300)
MODELS = ("llama", "llama first", "llama second", "mistral", "gemma3", "gpt2")
ROOT = Path(__file__).parents[2]
#: Drafted and accepted tokens.
COUNTS = ("spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers of the server's modules: model -> way of drafting -> answers and counts."""
    folder = tmp_path_factory.mktemp("drafts")
    words = [str(word) for word in (python_of_environment(), "-m", "tests.live.draft_cases", folder, PROGRAM)]
    ended = subprocess.run(words, cwd=ROOT, timeout=280, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found: dict[str, Any] = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("model", MODELS)
def test_every_answer_with_drafts_is_the_one_without(made: dict[str, Any], model: str) -> None:
    ways = dict(made[model])
    expected = ways.pop("without")["answers"]
    assert len({tuple(each["tokens"]) for each in expected.values()}) == len(expected)
    for way, found in ways.items():
        for case, each in found["answers"].items():
            if case == "cancelled":  # it ends after a step, which may have several tokens
                both = (each["tokens"], expected[case]["tokens"])
                assert each["finish"] is None and both[0][: len(both[1])] == both[1], way
                continue
            logprobs, right = each.pop("logprobs"), dict(expected[case])
            assert [token for token, _ in logprobs] == [token for token, _ in right["logprobs"]], (way, case)
            assert [value for _, value in logprobs] == pytest.approx([v for _, v in right.pop("logprobs")], abs=1e-4)
            assert each == right, (way, case)


@pytest.mark.parametrize("model", MODELS)
def test_the_cases_end_for_every_reason(made: dict[str, Any], model: str) -> None:
    answers = made[model]["without"]["answers"]
    assert {each["finish"] for each in answers.values()} == {"stop", "length", "constraint", None}
    assert answers["stop string"]["stop"] is not None and len(answers["stop token"]["tokens"]) <= 14


@pytest.mark.parametrize("model", MODELS)
def test_right_drafts_are_accepted_and_wrong_ones_are_not(made: dict[str, Any], model: str) -> None:
    right, partly, wrong, alone = (made[model][way] for way in ("right", "partly", "wrong", "alone"))
    assert right["accepted"] > 0.9 * right["drafted"] > 100
    assert 0 < partly["accepted"] < partly["drafted"] and 0 < alone["accepted"] < alone["drafted"]
    assert wrong["accepted"] == 0 < wrong["drafted"]


# -- through HTTP -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with engine(tmp_path_factory.mktemp("engine") / "log", max_num_seqs=8) as running:
        yield running


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with engine(tmp_path_factory.mktemp("engine") / "log", max_num_seqs=8, prompt_lookup_num_tokens=0) as running:
        yield running


def test_an_answer_that_repeats_itself_has_accepted_drafts_by_default(drafting: RunningEngine) -> None:
    """Whether a draft is computed depends on the measured times of the steps, so a busy machine may need several."""

    def is_accepted() -> bool:
        repeat(drafting)
        drafted, accepted = map(drafting.metric, COUNTS)
        return 0 < accepted <= drafted

    until("a draft is accepted", is_accepted, 60)


def test_without_the_option_no_token_is_drafted(plain: RunningEngine) -> None:
    repeat(plain)
    assert [plain.metric(name) for name in COUNTS] == [0, 0]


def repeat(running: RunningEngine) -> dict[str, Any]:
    """An answer that can only repeat itself: the bias leaves few tokens."""
    body = {"model": UID, "prompt": "one two one two one two one two", "temperature": 0, "max_tokens": 120}
    tokens = running.post("/tokenize", model=UID, content=" llama").json()["tokens"]
    fields = {"ignore_eos": True, "logit_bias": {str(token): 100 for token in tokens}}
    answer: dict[str, Any] = running.post("/v1/completions", **body, **fields).json()
    return answer


#: Fields of a chat; each answer must be the same with and without drafts.
CHATS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled choices": {"temperature": 1.0, "seed": 3, "n": 2},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "penalties": {"temperature": 0.7, "seed": 4, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": TOOL["function"]["parameters"]}}},
    "object": {"response_format": {"type": "json_object"}, "max_tokens": 40},
    "tool": {"tools": [TOOL], "tool_choice": "required"},
    "after the end": {"ignore_eos": True, "stop_token_ids": [], "max_tokens": 150},
}


@pytest.mark.parametrize("fields", CHATS.values(), ids=CHATS)
def test_eight_chats_at_once_have_the_answers_without_drafts(
    drafting: RunningEngine, plain: RunningEngine, fields: dict[str, Any]
) -> None:
    questions = [pair["question"] for pair in QUESTIONS][:8]

    def ask(running: RunningEngine) -> list[Any]:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda question: running.chat(question, **{"max_tokens": 60} | fields), questions))
        return [[each["choices"], each["usage"]] for each in answers]

    (texts, numbers), (right, right_numbers) = divided(ask(drafting)), divided(ask(plain))
    assert texts == right and numbers == pytest.approx(right_numbers, abs=1e-3)


def divided(value: Any) -> tuple[Any, list[float]]:
    """The value without its log probabilities and the random ids of calls, and its log probabilities."""
    if isinstance(value, float):
        return None, [value]
    if not isinstance(value, dict | list):
        return value, []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    parts = {name: divided(each) for name, each in items if name != "id"}
    return {name: rest for name, (rest, _) in parts.items()}, [each for _, found in parts.values() for each in found]
