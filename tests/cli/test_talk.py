from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.canned import Answer, Asked, Canned, events, problem
from tests.cli.conftest import Run, Terminal
from tests.support.ports import free_port
from xinference.cli import conversation
from xinference.cli.answer_statistics import AnswerStatistics
from xinference.cli.commands.talk import new_chat
from xinference.cli.conversation_commands import HELP, run_command
from xinference.cli.main import cli
from xinference.cli.turns import Chat
from xinference.errors import Problem

CHAT = ("POST", "/v1/chat/completions")
LOADING = Answer({"error": {"message": "m is loading (fetch)."}}, 503, headers={"retry-after": "0"})


def said(*pieces: str, then: Callable[[], object] | None = None, reason: str | None = None) -> Answer:
    chunks: list[Any] = [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
    if reason is not None:
        chunks.append({"choices": [{"delta": {}, "finish_reason": reason}]})
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


@pytest.mark.process
def test_an_answer_at_a_terminal_is_broken_between_words_and_in_a_pipe_it_is_not(
    canned: Canned, terminal: Callable[..., Terminal]
) -> None:
    words = [f"word{n:02}" for n in range(30)]
    canned.answers[CHAT] = [said(*(f" {word}"[:3] + f" {word}"[3:] for word in words)) for _ in range(2)]
    at = terminal("chat", "-u", "m", "Hi", stdout_is_terminal=True)
    at.until("word29")
    shown = [re.sub(r"[^ ]*\x1b\[\d+G\x1b\[K", "", line).split() for line in at.seen.split("\r\n")]
    assert shown[:3] == [words[:14], words[14:28], words[28:]]
    piped = terminal("chat", "-u", "m", "Hi")
    assert piped.end() == (0, "".join(f" {word}" for word in words) + "\n")


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
    (asked,) = canned.asked_for("POST", "/v1/completions")
    assert asked.body == {"model": "m", "prompt": "Once", "stream": True, "max_tokens": 512}
    canned.answers["POST", "/v1/completions"] = Answer({"choices": [{"text": " more"}]})
    assert run("generate", "-u", "m", "Once", "--no-stream").stdout == " more\n"


@pytest.mark.parametrize(("context", "most"), [(256, 128), (1024, 512), (8192, 512), (None, 512)])
def test_a_completion_is_at_most_half_of_a_small_context(
    canned: Canned, run: Run, context: int | None, most: int
) -> None:
    canned.answers["POST", "/v1/completions"] = [written(" upon") for _ in range(2)]
    canned.answers["GET", "/v1/models/instances"] = Answer(
        [{"model_uid": "m", "model_name": "m", "status": "READY", "context_length": context}]
    )
    for words in (["m", "Once"], ["-u", "m", "Once"]):
        assert run("generate", *words).exit_code == 0
    asked = canned.asked_for("POST", "/v1/completions")
    assert [each.body["max_tokens"] for each in asked] == [most, most]


def test_a_chat_leaves_the_length_of_an_answer_to_the_model(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = said("Hello", reason="length")
    result = run("chat", "-u", "m", "Hi")
    assert "max_tokens" not in canned.asked[0].body
    assert "the context is full" in result.stderr and "--max-tokens" not in result.stderr


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
    monkeypatch.setattr(conversation, "LOADING_SECONDS", -1.0)
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
def test_the_note_about_a_loading_model_has_a_line_of_its_own_in_a_conversation(
    canned: Canned, terminal: Callable[..., Terminal]
) -> None:
    message = "m is not ready yet (stage: start). Retry in 5 seconds."
    loading = Answer({"error": {"message": message}}, 503, headers={"retry-after": "0"})
    canned.answers[CHAT] = [loading, said("Hello")]
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("Hi\n")
    shown.until("Assistant: \r\nm is not ready yet (stage: start). Waiting …\r\nAssistant: Hello")
    shown.type("\n")
    assert shown.end()[0] == 0


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


@pytest.mark.process
def test_a_conversation_continues_once_a_server_answers_again(
    canned: Canned, terminal: Callable[..., Terminal]
) -> None:
    def gone(asked: Asked) -> Answer:
        raise BrokenPipeError

    canned.answers[CHAT] = said("One")
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("x\n")
    shown.until("One")
    canned.answers[CHAT] = gone
    shown.type("y\n")
    shown.until("The conversation is kept")
    shown.until("User: ")
    canned.answers[CHAT] = said("Two")
    shown.type("y\n")
    shown.until("Two")
    shown.type("\n")
    assert shown.end()[0] == 0
    assert [m["content"] for m in canned.asked[-1].body["messages"]] == ["x", "One", "y"]


INSTANCES = [
    {"model_uid": "m", "model_name": "llama", "status": "READY"},
    {"model_uid": "n", "model_name": "qwen", "status": "READY"},
]


@pytest.mark.parametrize(
    ("words", "stdin", "model", "prompt"),
    [
        (["m", "Hi"], None, "m", "Hi"),
        (["llama"], "Hi", "m", "Hi"),
        (["n"], "Hi", "n", "Hi"),
        (["-u", "m", "n"], None, "m", "n"),
        (["m", "Sum up:"], "A text.", "m", "Sum up:\n\nA text."),
        (["m"], "\ufeffHi", "m", "Hi"),
    ],
)
def test_a_word_is_the_model_if_one_has_that_name(
    canned: Canned, run: Run, words: list[str], stdin: str | None, model: str, prompt: str
) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    canned.answers[CHAT] = said("Hello")
    result = run("chat", *words, stdin=stdin)
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    asked = canned.asked_for(*CHAT)[0].body
    assert (asked["model"], asked["messages"][0]["content"]) == (model, prompt)


@pytest.mark.parametrize("idle", [{"status": "ERROR"}, {"status": "UNLOADED"}])
def test_a_ready_model_of_the_name_answers_for_one_that_does_not(
    canned: Canned, run: Run, idle: dict[str, str]
) -> None:
    instances = [
        {"model_uid": "llama", "model_name": "llama", **idle},
        {"model_uid": "llama-copy", "model_name": "llama", "status": "READY"},
    ]
    canned.answers["GET", "/v1/models/instances"] = Answer(instances)
    canned.answers[CHAT] = said("Hello")
    assert run("chat", "llama", "Hi").exit_code == 0
    assert canned.asked_for(*CHAT)[0].body["model"] == "llama-copy"


def test_a_prompt_without_quotes_is_a_usage_error(canned: Canned, run: Run) -> None:
    result = run("chat", "m", "Why", "is", "the", "sky", "blue?")
    assert (result.exit_code, canned.asked) == (2, [])
    assert "quotes" in result.stderr


@pytest.mark.parametrize("content", [b"gr\xfc\xdfe", b"\xff\xfeH\x00i\x00", b"\x80"])
def test_a_piped_text_in_another_encoding_is_refused(canned: Canned, content: bytes) -> None:
    result = CliRunner().invoke(cli, ["chat", "-u", "m", "-e", canned.url], input=content)
    assert (result.exit_code, canned.asked) == (1, [])
    assert "Error: Standard input is not UTF-8 text: byte 0x" in result.stderr


def test_an_answer_that_was_cut_says_so(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = said("Hello", reason="length")
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    result = run("chat", "m", "Hi", "--max-tokens", "7")
    assert (result.stdout, result.stderr) == ("Hello\n", "(cut at 7 tokens; --max-tokens allows more)\n")
    canned.answers[CHAT] = said("Hello", reason="stop")
    assert run("chat", "m", "Hi").stderr == ""


def test_the_speed_is_shown_on_request(canned: Canned, run: Run) -> None:
    canned.answers[CHAT] = said("Hel", "lo")
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    result = run("chat", "m", "Hi", "--verbose")
    assert result.stdout == "Hello\n"
    assert "first token after" in result.stderr
    assert canned.asked_for(*CHAT)[0].body["stream_options"] == {"include_usage": True}


def test_the_speed_is_that_between_the_first_and_the_last_token() -> None:
    times = iter([10.0, 10.5, 11.0, 12.5])
    statistics = AnswerStatistics(clock=lambda: next(times))
    statistics.begin()
    statistics.read({"choices": [{"delta": {"role": "assistant", "content": ""}}]})  # before any token
    for _ in range(3):
        statistics.read({"choices": [{"delta": {"content": "x"}}]})
    usage = {"completion_tokens": 9, "prompt_tokens": 30, "prompt_tokens_details": {"cached_tokens": 12}}
    statistics.read({"choices": [], "usage": usage})
    told = "(30 prompt tokens, 12 of them cached, 9 output tokens, 4.0 tokens/s, first token after 0.50 s)"
    assert statistics.speed_note() == told


def test_a_chat_as_json_is_the_whole_answer(canned: Canned, run: Run) -> None:
    answer = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
    canned.answers[CHAT] = Answer(answer)
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    assert json.loads(run("chat", "m", "Hi", "--json").stdout) == answer
    assert canned.asked_for(*CHAT)[0].body["stream"] is False
    assert run("chat", "-u", "m", "--json").exit_code == 2


def test_run_chats_with_a_model_that_runs(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    canned.answers[CHAT] = said("Hello")
    assert run("run", "qwen", "Hi").stdout == "Hello\n"
    assert canned.asked_for(*CHAT)[0].body["model"] == "n"
    assert not canned.asked_for("POST", "/v1/models")


def test_run_needs_no_launch_for_the_version_that_runs(canned: Canned, run: Run) -> None:
    version = {"model_size_in_billions": "0_5", "quantization": "Q4_0", "model_engine": "llama.cpp"}
    canned.answers["GET", "/v1/models/instances"] = Answer([INSTANCES[0], {**INSTANCES[1], **version}])
    canned.answers[CHAT] = said("Hello")
    line = ["run", "qwen", "-s", "0.5B", "-q", "q4_0", "-en", "LLAMA.CPP", "Hi"]
    assert run(*line).stdout == "Hello\n"
    assert not canned.asked_for("POST", "/v1/models")
    assert run("run", "qwen", "-q", "Q8_0", "Hi").exit_code == 1
    assert canned.asked_for("POST", "/v1/models")


def test_run_loads_an_unloaded_model_and_leaves_one_on_demand_to_its_request(canned: Canned, run: Run) -> None:
    unloaded = {**INSTANCES[1], "status": "UNLOADED"}
    canned.answers["GET", "/v1/models/instances"] = Answer([unloaded])
    canned.answers["POST", "/v1/models/n/load"] = Answer({"model_uid": "n"})
    canned.answers[CHAT] = said("Hello")
    result = run("run", "qwen", "Hi")
    assert result.stdout == "Hello\n" and "n was unloaded; loading it again." in result.stderr
    assert len(canned.asked_for("POST", "/v1/models/n/load")) == 1
    canned.answers["GET", "/v1/models/instances"] = Answer([{**unloaded, "on_demand": True}])
    canned.answers[CHAT] = said("Hello")
    assert run("run", "qwen", "Hi").stdout == "Hello\n"
    assert len(canned.asked_for("POST", "/v1/models/n/load")) == 1


def test_run_launches_a_model_that_does_not_run(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    canned.answers["POST", "/v1/models"] = Answer({"model_uid": "phi"})
    canned.answers["GET", "/v1/models/phi/events"] = events({"event_type": "READY", "model": {"model_uid": "phi"}})
    canned.answers[CHAT] = said("Hello")
    result = run("run", "phi", "-s", "4b", "Hi")
    assert (result.exit_code, result.stdout) == (0, "Hello\n")
    (asked,) = canned.asked_for("POST", "/v1/models")
    assert asked.body == {
        "model_name": "phi",
        "model_type": "LLM",
        "model_size_in_billions": 4,
        "n_gpu": "auto",
        "replica": 1,
    }
    assert canned.asked_for(*CHAT)[0].body["model"] == "phi"


@pytest.fixture
def talk() -> Chat:
    model: Any = SimpleNamespace(model_uid="m")
    history = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    return Chat(model, {"stream": True, "max_tokens": 512}, history)


@pytest.mark.parametrize("word", ["/exit", "/bye", "/quit", "/EXIT"])
def test_a_user_leaves_by_a_word(talk: Chat, word: str) -> None:
    assert not run_command(talk, word)


def test_the_commands_of_a_conversation(talk: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chat.json"
    for line in ("/help", "/set temperature 0.2", "/set max-tokens 9", f"/save {file}", "/clear", "/hepl", "/save"):
        assert run_command(talk, line)
    assert talk.config == {"stream": True, "max_tokens": 9, "temperature": 0.2}
    assert json.loads(file.read_text())["messages"][1] == {"role": "user", "content": "Hi"}
    assert talk.history == [{"role": "system", "content": "Be brief."}]
    shown = capsys.readouterr()
    assert all(name in shown.out for name in HELP)
    assert "Did you mean /help?" in shown.err
    run_command(talk, "/system Rhyme.")
    assert talk.history == [{"role": "system", "content": "Rhyme."}]
    run_command(talk, "/set temperature none")
    assert "temperature" not in talk.config


def test_the_help_of_a_conversation_fits_80_columns(talk: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(talk, "/help")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > len(HELP)
    assert max(map(len, lines)) <= 80


def test_a_file_that_cannot_be_written_ends_no_conversation(
    talk: Chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(talk, f"/save {tmp_path}")
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.process
def test_pasted_lines_are_one_message(canned: Canned, terminal: Callable[..., Terminal]) -> None:
    canned.answers[CHAT] = [said("Fine."), said("Bye."), said("Bye.")]
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("/exit or Ctrl-D leaves")
    shown.until("User: ")
    shown.type("one\ntwo\n\nthree\n")
    shown.until("Assistant: Fine.")
    shown.until("User: ")
    shown.type("\x1b[200~four\nfive\x1b[201~\n")
    shown.until("Assistant: Bye.")
    shown.until("User: ")
    shown.type("six\nseven")
    shown.until("seven")
    shown.type(" and more\n")
    shown.until("Assistant: Bye.")
    shown.until("User: ")
    shown.type("/bye\n")
    assert shown.end()[0] == 0
    asked = [asked.body["messages"][-1]["content"] for asked in canned.asked_for(*CHAT)]
    assert asked == ["one\ntwo\n\nthree", "four\nfive", "six\nseven and more"]


@pytest.mark.process
def test_an_interrupt_at_the_prompt_clears_it_and_two_leave(terminal: Callable[..., Terminal]) -> None:
    shown = terminal("chat", "-u", "m", stdout_is_terminal=True)
    shown.until("User: ")
    shown.type("a typo")
    shown.until("a typo")
    shown.interrupt_until("Ctrl-C again")
    shown.until("User: ")
    assert shown.interrupt_to_the_end() == 130


def test_a_conversation_whose_server_ends_names_the_option_for_another_one() -> None:
    talk = new_chat(None)(("m", f"http://127.0.0.1:{free_port()}", {}), {"stream": False})
    with talk.model, pytest.raises(Problem, match="No server answers") as refused:
        talk.whole_answer("hi")
    assert "give the URL of another one with --endpoint" in (refused.value.hint or "")
