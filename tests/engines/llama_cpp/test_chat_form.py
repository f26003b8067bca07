"""Tools are refused on llama.cpp where the chat template that it uses writes no calls, and the plan says what stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engines.plans import launch_of, sized
from tests.engines.recorded.llama_cpp_streams import FORMS, WRITES_NO_CALLS
from tests.formats.gguf_writer import STRING, Gguf, llama_pairs, scalar
from tests.support.cases import in_one_test
from xinference.catalog.registry import builtin_families
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.launch.match import match
from xinference.launch.plan import LaunchPlan
from xinference.launch.request import LaunchRequest
from xinference.weights.shape_reader import UNWRITTEN_CALLS, read_shape

WRITES, WRITES_NOT = FORMS["qwen"].template, WRITES_NO_CALLS["turns"]


def plan(family: str, *, in_weights: bool | None = None, option: str | None = None) -> LaunchPlan:
    request = LaunchRequest(model_name=family, model_format="ggufv2")
    options = {"chat_template": option} if option else {}
    return replace(sized(launch_of(request=request, engine="llama.cpp", options=options)), writes_calls=in_weights)


@in_one_test(
    ("family", "in_weights", "option", "is_refused"),
    [
        ("qwen2.5-instruct", True, None, False),
        ("qwen2.5-instruct", False, None, True),  # also a family that calls tools elsewhere
        ("qwen2.5-instruct", False, WRITES, False),
        ("qwen2.5-instruct", True, WRITES_NOT, True),
        ("qwen2.5-instruct", None, None, False),  # the weights are not here yet
        ("llama-2-chat", None, None, True),  # the family's own template replaces that in the weights
        ("llama-2-chat", True, None, True),
        ("smollm2-instruct", False, None, False),
    ],
)
def test_tools_need_a_template_that_writes_calls(
    family: str, in_weights: bool | None, option: str | None, is_refused: bool
) -> None:
    refusal = LlamaCpp().tool_refusal(plan(family, in_weights=in_weights, option=option))
    assert (refusal is not None) == is_refused
    assert refusal is None or (family in refusal and "--chat_template" in refusal)


@pytest.mark.parametrize(
    ("pairs", "writes"),
    [
        ({"tokenizer.chat_template": WRITES}, True),
        ({"tokenizer.chat_template": WRITES_NOT}, False),
        ({"tokenizer.chat_template": WRITES_NOT, "tokenizer.chat_template.tool_use": WRITES}, True),
        ({"tokenizer.chat_template": ""}, False),
    ],
)
def test_the_file_decides_and_the_plan_says_so(tmp_path: Path, pairs: dict[str, str], writes: bool) -> None:
    made = Gguf(pairs=llama_pairs() | {name: scalar(STRING, text) for name, text in pairs.items()})
    version = match(builtin_families(), LaunchRequest(model_name="qwen2.5-instruct", model_format="ggufv2"))
    shape, notes = read_shape(made.write(tmp_path / "m.gguf"), version)
    assert shape.writes_calls is writes
    assert notes == (() if writes else (UNWRITTEN_CALLS,))


def test_the_plan_says_that_thoughts_without_tags_in_the_template_stay_in_the_answer() -> None:
    def reasons(family: str) -> str:
        request = LaunchRequest(model_name=family, model_format="ggufv2")
        version = match(builtin_families(), request)
        return " ".join(LlamaCpp().complete_options(version, request, {})[1])

    assert "stays in the answer" in reasons("granite-3.3-instruct")
    assert "stays in the answer" not in reasons("qwen3")
