"""Tool calls through the server on llama.cpp: read where the weights' chat template writes calls, else refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.engines.recorded.llama_cpp_streams import FORMS, WRITES_NO_CALLS
from tests.engines.recorded.streams import CALL, SPECIAL, THOUGHT, TOOL
from tests.formats.replay_model import write_replay
from tests.support.home import Home, sse_events
from tests.support.polling import until
from tests.support.ports import free_port

NAMED = {"type": "function", "function": {"name": CALL["name"]}}
TEMPLATES = {"writes-calls": FORMS["qwen"].template, "writes-none": WRITES_NO_CALLS["turns"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, subprocess.Popen[bytes]]]:
    """Two models that say a thought and a call; the chat template of one has no tools."""
    home = Home(tmp_path_factory.mktemp("home"), free_port(), {})
    folder = tmp_path_factory.mktemp("weights")
    answer = FORMS["qwen"].answers()["thought and call"]
    try:
        server = home.serve()
        for uid, template in TEMPLATES.items():
            file = folder / f"{uid}.Q8_0.gguf"
            write_replay(file, answer, SPECIAL, template=template)
            launched = home.launch(
                model_name="qwen3", model_uid=uid, model_format="ggufv2", model_path=str(file), n_ctx=2048
            )
            assert launched.status_code == 200, launched.text
        yield home, server
    finally:
        home.clean_up()


@pytest.fixture(scope="module")
def home(served: tuple[Home, subprocess.Popen[bytes]]) -> Home:
    return served[0]


def ask(home: Home, uid: str, **fields: Any) -> httpx2.Response:
    return home.chat(model=uid, max_tokens=200, temperature=0, tools=[TOOL], **fields)


def check(deltas: list[dict[str, Any]]) -> None:
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls") or ()]
    assert "".join(call.get("name") or "" for call in calls) == CALL["name"]
    assert json.loads("".join(call.get("arguments") or "" for call in calls)) == CALL["arguments"]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas).strip() == THOUGHT
    assert "".join(delta.get("content") or "" for delta in deltas).strip() == ""


def test_a_thought_and_a_call_are_read_whole_and_streamed(home: Home) -> None:
    whole = ask(home, "writes-calls")
    assert whole.status_code == 200, whole.text
    check([whole.json()["choices"][0]["message"]])
    *events, end = sse_events(ask(home, "writes-calls", stream=True).text)
    check([choice["delta"] for event in events for choice in event["choices"]])
    assert end == "[DONE]"


@pytest.mark.parametrize("choice", [None, "auto", "required", NAMED])
def test_tools_are_refused_where_the_template_writes_none(home: Home, choice: Any) -> None:
    check_refusal(ask(home, "writes-none", **({} if choice is None else {"tool_choice": choice})))


def check_refusal(refused: httpx2.Response) -> None:
    assert refused.status_code == 400, refused.text
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("tools_unsupported", "tools")
    assert "chat template" in error["message"] and "qwen3" in error["message"]


def test_without_tools_the_model_answers(home: Home) -> None:
    assert home.chat(model="writes-none", max_tokens=4).status_code == 200
    assert ask(home, "writes-none", tool_choice="none").status_code == 200


def test_a_server_that_adopts_the_engine_refuses_them_too(served: tuple[Home, subprocess.Popen[bytes]]) -> None:
    home, server = served
    engine = home.engine_pid("writes-none")
    server.kill()
    server.wait()
    home.serve()
    until("the engine is adopted", lambda: home.chat(model="writes-none", max_tokens=2).status_code == 200)
    assert home.engine_pid("writes-none") == engine
    for choice in ("auto", "required"):
        check_refusal(ask(home, "writes-none", tool_choice=choice))
