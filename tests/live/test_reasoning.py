"""Thoughts on llama.cpp: told apart from the answer, on streams and not, and switched by launches and requests.

What the model writes is forced by a grammar, so that the test knows it; which part of it is a thought is llama.cpp's to
find by the model's template.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conformance.__main__ import ASSETS
from tests.formats.gguf_model import write_gguf
from tests.support.home import Home, sse_events

#: In the manner of Qwen3's: earlier thoughts are written back, and a switch closes the thought before it begins.
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' }}"
    "{% if m['role'] == 'assistant' and m['reasoning_content'] is string %}"
    "{{ '<think>\\n' + m['reasoning_content'] + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% else %}{{ '<think>\\n' }}{% endif %}{% endif %}"
)
CLOSED = "assistant: <think>\n\n</think>\n\n"
OPEN = "assistant: <think>\n"
SAYS = {"guided_grammar": 'root ::= "One and one.\\n</think>\\n\\nTwo."', "max_tokens": 60}
MESSAGES = [{"role": "user", "content": "Add."}]


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A server with the tiny model under a template that thinks, launched with thoughts and without."""
    home = make_home()
    home.serve()
    file: Path = write_gguf(ASSETS, "Q8_0", tmp_path_factory.mktemp("weights") / "tiny.Q8_0.gguf")
    model = {
        "version": 2,
        "context_length": 2048,
        "model_name": "thinker",
        "model_lang": ["en"],
        "model_ability": ["chat", "reasoning", "hybrid"],
        "model_family": "other",
        "model_specs": [{"model_format": "ggufv2", "model_size_in_billions": 1, "quantization": "Q8_0",
                         "model_uri": str(file)}],
        "chat_template": TEMPLATE,
        "reasoning_start_tag": "<think>",
        "reasoning_end_tag": "</think>",
    }  # fmt: skip
    body = {"model": json.dumps(model), "persist": False}
    kept = httpx2.post(f"{home.url}/v1/model_registrations/LLM", json=body, timeout=30)
    assert kept.status_code == 200, kept.text
    for uid, fields in (("thinks", {}), ("is-told-not-to", {"enable_thinking": False})):
        launched = home.launch(model_name="thinker", model_uid=uid, n_ctx=512, **fields)
        assert launched.status_code == 200, launched.text
    return home


def prompt(home: Home, uid: str, **fields: Any) -> str:
    """What the template makes of the conversation."""
    body = {"model": uid, "messages": MESSAGES, **fields}
    answer = httpx2.post(f"{home.url}/apply-template", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["prompt"]
    return text


def test_a_thought_is_told_apart_from_the_answer(home: Home) -> None:
    said = home.chat(model="thinks", messages=MESSAGES, **SAYS).json()["choices"][0]["message"]
    assert (said["reasoning_content"].strip(), said["content"].strip()) == ("One and one.", "Two.")


def test_a_thought_is_told_apart_on_a_stream(home: Home) -> None:
    *events, end = sse_events(home.chat(model="thinks", messages=MESSAGES, stream=True, **SAYS).text)
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    thought, answer = ("".join(delta.get(name) or "" for delta in deltas) for name in ("reasoning_content", "content"))
    assert (thought.strip(), answer.strip(), end) == ("One and one.", "Two.", "[DONE]")


@pytest.mark.parametrize("uid", ["thinks", "is-told-not-to"])
@pytest.mark.parametrize("name", ["chat_template_kwargs", "enable_thinking"])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_request_switches_the_thought_whatever_the_launch_said(
    home: Home, uid: str, name: str, *, wanted: bool
) -> None:
    given = {"enable_thinking": wanted} if name == "chat_template_kwargs" else wanted
    counts = [
        home.chat(model=uid, messages=MESSAGES, max_tokens=1, **fields).json()["usage"]["prompt_tokens"]
        for fields in ({name: given}, {"chat_template_kwargs": {"enable_thinking": not wanted}})
    ]
    assert (counts[0] < counts[1]) is wanted
    if name == "chat_template_kwargs":
        assert prompt(home, uid, chat_template_kwargs=given).endswith(OPEN if wanted else CLOSED)


def test_a_launch_says_whether_to_think_where_a_request_does_not(home: Home) -> None:
    assert prompt(home, "thinks").endswith(OPEN)
    assert prompt(home, "is-told-not-to").endswith(CLOSED)


def test_an_answer_without_a_thought_has_none(home: Home) -> None:
    plain = {"guided_grammar": 'root ::= "Two."', "max_tokens": 20}
    said = home.chat(model="is-told-not-to", messages=MESSAGES, **plain).json()["choices"][0]["message"]
    assert said["content"] == "Two." and not said.get("reasoning_content")
