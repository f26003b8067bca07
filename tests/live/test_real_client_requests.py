"""What clients and agents really send, to real engines: it is answered, or refused by the name of the field.

The tables are those of the stand-ins; here, the engines themselves read what reaches them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.formats.gguf_model import write_gguf
from tests.gateway.harness import ANTHROPIC
from tests.gateway.test_real_client_requests import (
    ANSWERED,
    BASES,
    CHATS,
    FUNCTION,
    REFUSED,
    RESPONSES,
    USER,
    named_field,
)
from tests.live.test_engines import CONTEXT_OPTION, FORMATS, HF, START_SECONDS
from tests.support.built_environments import require_environment
from tests.support.home import Home

UID = "m"
#: Any order of roles, and calls of tools in Hermes' form. Nothing follows the last message: an engine that computes
#: such a text as part of a grammar reads it with this tokenizer, which begins each text with a space.
TEMPLATE = """\
{%- if tools %}{{- '<tools>' }}{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\n' }}{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}{{- message.content or '' }}
{%- for call in message.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- elif message.role == 'tool' %}{{- '[INST] <tool_response>\\n' + message.content + '\\n</tool_response> [/INST]' }}
{%- elif message.role == 'user' %}{{- '[INST] ' + message.content + ' [/INST]' }}
{%- else %}{{- message.content }}{%- endif %}
{%- endfor %}"""
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
FLAT = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}
#: The field of each API that limits the answer, so that the tables take no longer than they need.
LIMITS = {RESPONSES: "max_output_tokens"}

pytestmark = pytest.mark.timeout(START_SECONDS + 60)


@dataclass(frozen=True)
class Running:
    """The tiny model on one engine, with a chat template that calls tools."""

    engine: str
    home: Home

    def post(self, path: str, fields: dict[str, Any], tokens: int = 4) -> httpx2.Response:
        limit = {LIMITS.get(path, "max_tokens"): tokens}
        given = {name: value for name, value in fields.items() if value is not None or name not in limit}
        body = BASES[path] | limit | given
        return httpx2.post(f"{self.home.url}{path}", json=body, headers=ANTHROPIC, timeout=120)

    def serves(self, path: str) -> bool:
        """Whether the model answers requests on this path: it makes no vectors and no scores."""
        return path in BASES and "embed" not in path and "rerank" not in path


@pytest.fixture(scope="module", params=["llama.cpp", "Transformers"])
def running(
    request: pytest.FixtureRequest, make_home: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    engine: str = request.param
    home = make_home()
    require_environment(home.path, engine)
    home.serve()
    model_format, quantization = FORMATS[engine]
    path = _weights(engine, tmp_path_factory.mktemp("tools"))
    launched = home.cli(
        *("launch", "-n", "qwen2.5-instruct", "-s", "0.5B", "-f", model_format, "-q", quantization, "-en", engine),
        *("-u", UID, "--model-path", str(path), CONTEXT_OPTION[engine], "1024"),
        seconds=START_SECONDS,
    )
    assert launched.returncode == 0, launched.stderr
    yield Running(engine, home)
    home.cli("stop")


def _weights(engine: str, folder: Path) -> Path:
    if engine == "llama.cpp":
        return write_gguf(HF, "Q8_0", folder / "tools.gguf", {"tokenizer.chat_template": TEMPLATE})
    shutil.copytree(HF, folder / "tools")
    config = json.loads((HF / "tokenizer_config.json").read_text(encoding="utf-8")) | {"chat_template": TEMPLATE}
    (folder / "tools" / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "tools"


def test_what_clients_send_is_answered(running: Running) -> None:
    wrong = []
    for path, fields in ANSWERED:
        if running.serves(path) and (answer := running.post(path, fields)).status_code != 200:
            wrong.append((path, fields, answer.status_code, answer.text))
    assert wrong == [], "\n".join(map(str, wrong))


def test_what_cannot_be_served_is_refused_by_its_name(running: Running) -> None:
    wrong = []
    for path, fields, param in REFUSED:
        if running.serves(path):
            answer = running.post(path, fields)
            named = named_field(answer.json())
            if (answer.status_code, named) != (400, param):
                wrong.append((path, fields, answer.status_code, named, answer.text))
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    "fields",
    [{"response_format": FORMAT}, {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}],
)
def test_a_schema_of_a_chat_is_followed(running: Running, fields: dict[str, Any]) -> None:
    answer = running.post(CHATS, fields | {"temperature": 0}, tokens=100).json()
    assert json.loads(answer["choices"][0]["message"]["content"])["a"] in ("x", "y")


def test_a_schema_of_a_response_is_followed(running: Running) -> None:
    text = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    answer = running.post(RESPONSES, {"text": text, "temperature": 0}, tokens=100).json()
    (message,) = answer["output"]
    assert json.loads(message["content"][0]["text"])["a"] in ("x", "y") and answer["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_its_limit_ends_is_incomplete(running: Running, stream: bool) -> None:
    answer = running.post(RESPONSES, {"stream": stream, "input": "Recite a poem."}, tokens=2)
    whole = json.loads(answer.text.strip().rpartition("data: ")[2])["response"] if stream else answer.json()
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHATS, {"tools": [FUNCTION], "tool_choice": "required"}),
        (CHATS, {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (RESPONSES, {"tools": [FLAT], "tool_choice": {"type": "function", "name": "f"}}),
    ],
)
def test_a_call_is_forced_or_begun(running: Running, path: str, fields: dict[str, Any]) -> None:
    """The tiny model may write blanks up to the limit, so only a complete answer has the call."""
    answer = running.post(path, fields | {"temperature": 0}, tokens=200)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    if path == CHATS and document["choices"][0]["finish_reason"] != "length":
        assert document["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "f"
    if path == RESPONSES and document["status"] == "completed":
        assert [item["name"] for item in document["output"] if item["type"] == "function_call"] == ["f"]


@pytest.mark.parametrize("stop", [["", "moon"], ["never", ""], [""] * 3])
def test_an_empty_stop_text_has_no_effect(running: Running, stop: list[str]) -> None:
    fields = {"messages": [USER], "temperature": 0}
    whole = running.post(CHATS, fields, tokens=40).json()["choices"][0]["message"]["content"]
    cut = running.post(CHATS, fields | {"stop": stop}, tokens=40).json()["choices"][0]["message"]["content"]
    kept = [text for text in stop if text and text in whole]
    assert cut == (whole[: whole.index(kept[0])] if kept else whole) and whole
