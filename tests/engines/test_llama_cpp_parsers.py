"""llama.cpp's own parser reads a recorded answer in each form, as a stream and whole, with the same result.

Without a place where it parses a text, a tiny model replays each answer. Under templates written by hand this runs
here; under the models' own templates, which come with the weights and with llama.cpp, the results are recorded. Where
XINFERENCE_TEST_LLAMA_CPP_TEMPLATES names a folder with llama.cpp's `models/templates`, they are made anew and compared:

    pip download --no-deps --no-binary :all: llama-cpp-python && tar -xf llama_cpp_python-*.tar.gz
    XINFERENCE_TEST_LLAMA_CPP_TEMPLATES=FOLDER pytest tests/engines/test_llama_cpp_parsers.py

`python -m tests.engines.test_llama_cpp_parsers FOLDER` records them.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.engines.recorded.llama_cpp_streams import FORMS, WRITES_NO_CALLS
from tests.engines.recorded.parse_with_llama_cpp import parse
from tests.engines.recorded.streams import ANSWER, CALL, THOUGHT, TOOL_CALLS
from tests.support.cases import in_one_test
from xinference.catalog.registry import builtin_families
from xinference.formats.chat_template import writes_tool_calls

RECORDED = Path(__file__).parent / "recorded" / "llama-cpp-parsed.json"
FAMILIES = [family for family in builtin_families().values() if family.model_type == "LLM"]
CASES = [(name, kind) for name, form in FORMS.items() for kind in form.answers()]
#: Forms of tool calls whose models have a chat template without them; llama.cpp reads none of their calls.
UNREAD = {"glm4", "granite", "internlm", "phi4_mini_json", None}
#: Texts without a thought and without a call, by the kind of the answer.
WANTED: dict[str, tuple[str, str, list[Any]]] = {
    "thought": (THOUGHT, ANSWER, []),
    "thought and call": (THOUGHT, "", [CALL]),
    "call": ("", "", [CALL]),
}


def check(kind: str, messages: list[dict[str, Any]]) -> None:
    for message in messages:
        calls = [{**call, "arguments": json.loads(call["arguments"])} for call in message["calls"]]
        found = (message["reasoning_content"].strip(), message["content"].strip(), calls)
        assert found == WANTED[kind], message


def parse_form(name: str, kind: str, template: str) -> list[dict[str, Any]]:
    form = FORMS[name]
    answer = form.answers()[kind]
    return parse(template, answer, before=form.opens or form.ends, tools=form.call is not None)


def parse_own(folder: Path) -> dict[str, Any]:
    """What llama.cpp makes of each answer under the models' own templates."""
    found: dict[str, Any] = {}
    for name, kind in CASES:
        template = (folder / f"{FORMS[name].own}.jinja").read_text(encoding="utf-8")
        row = found.setdefault(
            name, {"template": FORMS[name].own, "sha256": hashlib.sha256(template.encode()).hexdigest(), "answers": {}}
        )
        text = FORMS[name].answers()[kind]
        row["answers"][kind] = {"text": text, "parsed": parse_form(name, kind, template)}
        row["writes_calls"] = writes_tool_calls(template)
    return {"xllamacpp": version("xllamacpp"), "forms": found}


def recorded() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return read


def test_every_form_of_a_family_in_gguf_has_an_answer_or_is_refused() -> None:
    runs = [family for family in FAMILIES if any(spec.model_format == "ggufv2" for spec in family.model_specs)]
    forms = {family.tool_parser for family in runs if "tools" in family.model_ability}
    assert forms - FORMS.keys() == UNREAD


@in_one_test(("name", "kind"), CASES)
def test_under_the_models_own_template_the_thought_and_the_call_are_read(name: str, kind: str) -> None:
    row = recorded()["forms"][name]
    assert row["answers"][kind]["text"] == FORMS[name].answers()[kind], "the record is of another text"
    check(kind, row["answers"][kind]["parsed"])
    assert row["writes_calls"] or FORMS[name].call is None


@in_one_test("name", FORMS)
def test_a_template_that_writes_calls_is_recognised(name: str) -> None:
    assert writes_tool_calls(FORMS[name].template)


@in_one_test("name", WRITES_NO_CALLS)
def test_a_template_that_writes_none_is_recognised(name: str) -> None:
    assert not writes_tool_calls(WRITES_NO_CALLS[name])


@pytest.mark.live
@pytest.mark.timeout(200)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_thought_and_the_call_are_read(name: str, kind: str) -> None:
    check(kind, parse_form(name, kind, FORMS[name].template))


@pytest.mark.live
@pytest.mark.timeout(200)
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": CALL["name"]}}])
@pytest.mark.parametrize("name", WRITES_NO_CALLS)
def test_under_a_template_that_writes_no_calls_a_call_stays_in_the_text_also_a_forced_one(
    name: str, choice: Any
) -> None:
    """The reason why such a request is refused: llama.cpp answers it as if it had no tools."""
    text = TOOL_CALLS["minicpm5"]  # without a mark that is a token
    messages = parse(WRITES_NO_CALLS[name], text, tools=True, choice=choice)
    assert [(message["content"], message["calls"]) for message in messages] == [(text, [])] * 2


@pytest.mark.live
@pytest.mark.timeout(600)
def test_under_the_models_own_templates_llama_cpp_gives_what_is_recorded() -> None:
    folder = os.environ.get("XINFERENCE_TEST_LLAMA_CPP_TEMPLATES")
    if folder is None:
        pytest.skip("XINFERENCE_TEST_LLAMA_CPP_TEMPLATES names no folder with llama.cpp's templates")
    assert parse_own(Path(folder)) == recorded()


if __name__ == "__main__":
    results = parse_own(Path(sys.argv[1]))
    RECORDED.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
