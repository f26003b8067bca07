from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, events, problem
from tests.cli.conftest import Run, Terminal
from xinference.cli.commands import talk

CHAT = ("POST", "/v1/chat/completions")
LOADING = Answer({"error": {"message": "m is loading (fetch)."}}, 503, headers={"retry-after": "0"})


def said(*pieces: str, then: Callable[[], object] | None = None) -> Answer:
    chunks: list[Any] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    if then is not None:
        return events(*chunks, then=then)
    return events(*chunks, {"choices": [], "usage": {"total_tokens": 3}}, "[DONE]")


def written(*pieces: str) -> Answer:
    return events(*({"choices": [{"text": piece}]} for piece in pieces), "[DONE]")


def test_a_prompt_is_answered_on_stdout(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = said("Hel", "lo")
    result = run("chat", "-u", "m", "Hi", "--system", "Be brief.", "--max_tokens", "9", "--temperature", "0")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello\n", "")
    assert canned.asked[0].body == {
        "model": "m",
        "stream": True,
        "max_tokens": 9,
        "temperature": 0,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }


def test_a_prompt_can_be_piped_in(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = said("Hello")
    assert run("chat", "-u", "m", stdin="Hi\n").stdout == "Hello\n"
    assert canned.asked[0].body["messages"] == [{"role": "user", "content": "Hi\n"}]


def test_no_prompt_at_all_is_a_usage_error(canned: Canned, run: Run) -> None:
    assert run("chat", "-u", "m", stdin="").exit_code == 2


def test_an_answer_can_be_taken_whole(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = Answer({"choices": [{"message": {"content": "Hello"}}]})
    assert run("chat", "-u", "m", "Hi", "--no-stream").stdout == "Hello\n"
    assert canned.asked[0].body["stream"] is False


@pytest.mark.parametrize(("words", "streamed"), [(["--stream", "True"], True), (["--stream", "false"], False)])
def test_streaming_can_be_said_as_older_versions_have_it(
    canned: Canned, run: Run, words: list[str], streamed: bool
) -> None:
    canned.answers[CHAT] = said("Hello") if streamed else Answer({"choices": [{"message": {"content": "Hello"}}]})
    assert run("chat", "--model-uid", "m", *words, "Hi").stdout == "Hello\n"
    assert canned.asked[0].body["stream"] is streamed


def test_a_text_is_gone_on_with(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/completions"] = written(" upon", " a time")
    assert run("generate", "-u", "m", "Once").stdout == " upon a time\n"
    assert canned.asked[0].body == {"model": "m", "prompt": "Once", "stream": True, "max_tokens": 512}
    canned.answers["POST", "/v1/completions"] = Answer({"choices": [{"text": " more"}]})
    assert run("generate", "-u", "m", "Once", "--no-stream").stdout == " more\n"


def test_the_only_ready_model_needs_no_name(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(
        [{"model_uid": "m", "status": "READY"}, {"model_uid": "x", "status": "ERROR"}]
    )
    canned.answers[CHAT] = said("Hello")
    assert run("chat", "Hi").stdout == "Hello\n"
    assert canned.asked_for(*CHAT)[0].body["model"] == "m"


@pytest.mark.parametrize(
    ("instances", "text"),
    [
        ([], "xinference launch"),
        ([{"model_uid": "broken", "status": "ERROR"}], "xinference launch"),
        ([{"model_uid": "slow", "status": "LOADING"}], "still loading: slow."),
        ([{"model_uid": "a", "status": "READY"}, {"model_uid": "b", "status": "READY"}], "a, b"),
    ],
)
def test_without_one_ready_model_the_choices_are_told(canned: Canned, run: Run, instances: Any, text: str) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(instances)
    result = run("chat", "Hi")
    assert result.exit_code == 1
    assert text in result.stderr


def test_a_loading_model_is_waited_for(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = [LOADING, LOADING, said("Hello")]
    result = run("chat", "-u", "m", "Hi")
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    assert result.stderr == "m is loading (fetch). Waiting …\n"


def test_the_wait_for_a_loading_model_has_an_end(canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "LOADING_SECONDS", -1.0)
    canned.answers[CHAT] = LOADING
    result = run("chat", "-u", "m", "Hi")
    assert (result.exit_code, result.stderr) == (1, "Error: m is loading (fetch).\n")


def test_an_engine_that_dies_in_mid_answer_is_an_error(canned: Canned, run: Run) -> None:
    chunk = {"choices": [{"delta": {"content": "Hel"}}]}
    canned.answers[CHAT] = events(chunk, {"error": {"message": "The engine died.", "code": "engine_died"}})
    result = run("chat", "-u", "m", "Hi")
    assert (result.exit_code, result.stdout) == (1, "Hel")
    assert "Error: The engine died." in result.stderr


@pytest.mark.process
def test_a_conversation_remembers_and_ends_at_an_empty_line(canned: Canned, terminal: Callable[..., Terminal]) -> None:
    canned.answers[CHAT] = [said("Hello \x1b[2J!"), said("Bob.")]
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("I am Bob\n")
    shown.until("Assistant: Hello [2J!")
    shown.type("Who am I?\n")
    shown.until("Assistant: Bob.")
    shown.type("\n")
    assert shown.end()[0] == 0
    assert [m["content"] for m in canned.asked[1].body["messages"]] == ["I am Bob", "Hello \x1b[2J!", "Who am I?"]


@pytest.mark.process
def test_an_interrupt_stops_the_answer_and_not_the_conversation(
    canned: Canned, terminal: Callable[..., Terminal]
) -> None:
    go_on = threading.Event()
    canned.answers[CHAT] = [said("One, two", then=lambda: go_on.wait(30)), said("Fine.")]
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("Count\n")
    shown.until("One, two")
    shown.interrupt()
    shown.until("User: ")
    go_on.set()
    shown.type("Thanks\n")
    shown.until("Fine.")
    shown.until("User: ")
    shown.type("\x04")
    assert shown.end()[0] == 0
    assert canned.asked[1].body["messages"][1] == {"role": "assistant", "content": "One, two"}


@pytest.mark.process
def test_a_refused_turn_does_not_end_the_conversation(canned: Canned, terminal: Callable[..., Terminal]) -> None:
    canned.answers[CHAT] = [problem(400, "context", "Too long."), said("Fine.")]
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("x\n")
    shown.until("Error: Too long.")
    shown.type("y\n")
    shown.until("Fine.")
    shown.type("\n")
    assert shown.end()[0] == 0
    assert [m["content"] for m in canned.asked[1].body["messages"]] == ["y"]
