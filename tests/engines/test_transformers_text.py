"""The parts of the Transformers server that need no torch: text, stop strings, tool calls, requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.engines.transformers.server.answers import ChoiceBuilder
from xinference.engines.transformers.server.errors import RefusedError
from xinference.engines.transformers.server.requests import ChatRequest, CompletionRequest, read
from xinference.engines.transformers.server.text import Detokenizer, StopStrings
from xinference.engines.transformers.server.tools import ToolCall, ToolCallParser


def by_bytes(ids: Sequence[int]) -> str:
    """A tokenizer whose tokens are single bytes: the hardest case for characters of several."""
    return bytes(ids).decode(errors="replace")


def by_words(ids: Sequence[int]) -> str:
    """SentencePiece's habit: the space before the first word is dropped."""
    return "".join([" Hello", " world", "!"][i] for i in ids).removeprefix(" ")


def said(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [*(detokenizer.add(i) for i in ids), detokenizer.finish()]


@given(st.text())
def test_the_pieces_make_the_text_and_none_is_broken(text: str) -> None:
    text = text.replace("\ufffd", "")
    pieces = said(Detokenizer(by_bytes), text.encode())
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_that_never_came_whole_is_left_out() -> None:
    assert said(Detokenizer(by_bytes), "a🙂".encode()[:-1]) == ["a", "", "", "", ""]


def test_an_answer_of_its_own_begins_without_a_space_and_a_continuation_with_it() -> None:
    assert said(Detokenizer(by_words), [0, 1, 2]) == ["Hello", " world", "!", ""]
    assert said(Detokenizer(by_words, before=[0]), [1, 2]) == [" world", "!", ""]


def stopped(stops: list[str], *pieces: str) -> tuple[str, bool]:
    watch, shown = StopStrings(stops), ""
    for piece in pieces:
        shown += watch.add(piece)
        if watch.found:
            return shown, True
    return shown + watch.finish(), False


def test_the_stop_string_that_was_found_is_named() -> None:
    watch = StopStrings(["never", "END"])
    assert watch.add("one E") == "one " and watch.text is None
    assert watch.add("ND two") == "" and watch.text == "END"


def test_a_stop_string_is_found_across_pieces_and_is_not_shown() -> None:
    assert stopped(["END"], "one E", "N", "D two") == ("one ", True)


def test_what_may_become_a_stop_string_is_held_back_and_shown_when_it_does_not() -> None:
    watch = StopStrings(["END"])
    assert watch.add("an E") == "an "
    assert watch.add("N") == ""
    assert watch.add("T") == "ENT"


def test_the_first_of_several_stop_strings_cuts() -> None:
    assert stopped(["second", "first"], "first second") == ("", True)


@given(st.text(alphabet="ab", max_size=12), st.text(alphabet="ab", min_size=1, max_size=3), st.data())
def test_pieces_change_nothing_about_where_it_stops(text: str, stop: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert stopped([stop], text[:cut], text[cut:]) == (text.partition(stop)[0], stop in text)


def parsed(*pieces: str) -> tuple[str, list[ToolCall]]:
    parser, shown = ToolCallParser(), ""
    calls: list[ToolCall] = []
    for piece in pieces:
        text, new = parser.add(piece)
        shown, calls = shown + text, calls + new
    return shown + parser.finish(), calls


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_calls_are_found_in_pieces_of_any_size(size: int) -> None:
    text = f"I look.\n{CALL}\n{CALL}\nDone with it."
    shown, calls = parsed(*(text[i : i + size] for i in range(0, len(text), size)))
    assert calls == [ToolCall("f", '{"a": 1}')] * 2
    assert shown == "I look.\nDone with it."


HEAD = '<tool_call>\n{"name": "f", "arguments": '


def cut(text: str, forced: str | None, size: int = 1000) -> tuple[str, list[ToolCall]]:
    """The text and the calls of an answer that its limit has ended, whose text arrives in pieces."""
    parser, shown = ToolCallParser(forced), ""
    calls: list[ToolCall] = []
    for start in range(0, len(text), size):
        more, found = parser.add(text[start : start + size])
        shown, calls = shown + more, calls + found
    rest, call = parser.cut()
    return shown + rest, calls + ([] if call is None else [call])


@in_one_test("size", [1, 7, 1000])
@in_one_test(
    ("left", "arguments"),
    [
        ("", ""),
        ('{"city": "Par', '{"city": "Par'),
        ('{"city": "Paris"}', '{"city": "Paris"}'),
        ('{"city": "Paris"}}\n</tool_c', '{"city": "Paris"}'),
    ],
)
@in_one_test("forced", [None, "", "f"])
def test_a_call_that_is_cut_at_the_limit_has_the_arguments_so_far(
    forced: str | None, left: str, arguments: str, size: int
) -> None:
    assert cut(f"{HEAD}{left}", forced, size) == ("", [ToolCall("f", arguments)])


@in_one_test("text", ["", "<tool", '<tool_call>\n{"na', HEAD[:-3]])
def test_a_forced_call_that_is_cut_before_its_arguments_is_no_text(text: str) -> None:
    assert cut(text, "f") == ("", [ToolCall("f", "")]), "the request names the function"
    assert cut(text, "") == ("", [])
    assert cut(text, None) == (text, []), "the model may have written it as a text"


def test_what_is_cut_after_a_complete_call_is_no_second_call_and_no_text() -> None:
    assert cut(f"{CALL}\n<tool_ca", "") == ("", [ToolCall("f", '{"a": 1}')])
    assert cut(CALL, "f") == ("", [ToolCall("f", '{"a": 1}')])


@dataclass(frozen=True)
class CutPiece:
    text: str
    finish: str | None
    generated: int = 1
    logprobs: tuple[()] = ()
    prompt_logprobs: tuple[()] = ()
    stop: None = None


@in_one_test("choice", ["auto", "required", {"type": "function", "function": {"name": "f"}}])
def test_the_choice_of_a_cut_call_ends_by_its_length(choice: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [tool], "tool_choice": choice}
    request = read(json.dumps(body).encode(), ChatRequest)
    job: Any = SimpleNamespace(request=request, parses_tools=True, choices=1, prompts=[SimpleNamespace(tokens=[])])
    builder = ChoiceBuilder(job, 0, "", lambda token: b"")
    pieces: list[Any] = [CutPiece(HEAD, None), CutPiece('{"city": "Par', "length")]  # the class itself needs torch
    _, last = map(builder.take, pieces)
    whole = builder.whole()
    assert last is not None and last["finish_reason"] == whole["finish_reason"] == "length"
    assert whole["message"]["content"] is None
    for call in (last["delta"]["tool_calls"][0], whole["message"]["tool_calls"][0]):
        assert call["function"] == {"name": "f", "arguments": '{"city": "Par'}


def test_a_call_that_is_cut_off_or_is_no_json_stays_text() -> None:
    assert parsed(CALL[:30]) == (CALL[:30], [])
    assert parsed("<tool_call>no</tool_call>") == ("<tool_call>no</tool_call>", [])


@in_one_test(
    ("kind", "body", "param"),
    [
        (ChatRequest, '{"model": "m"}', None),
        (ChatRequest, '{"model": "m", "messages": []}', "messages"),
        (ChatRequest, '{"model": "m", "messages": [{}], "temperature": 3}', "temperature"),
        (CompletionRequest, '{"model": "m", "prompt": "x", "logprobs": 99}', "logprobs"),
        (CompletionRequest, '{"model": "m", "prompt": "x", "logit_bias": {"1": 500}}', "logit_bias[...]"),
        (CompletionRequest, "{", None),
    ],
)
def test_a_body_of_the_wrong_shape_is_a_400_that_names_the_field(kind: Any, body: str, param: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        read(body.encode(), kind)
    assert caught.value.status == 400 and caught.value.error["param"] == param
