"""The forms in which scripts of different ages call a chat."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.client.model_requests import chat

MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
HISTORY = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
THINKING = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}


def sent(*args: Any, **kwargs: Any) -> dict[str, Any]:
    body = chat("m", *args, **kwargs).body
    assert body is not None
    assert body.pop("model") == "m"
    return body


@in_one_test(
    ("args", "kwargs", "body"),
    [
        ((MESSAGES,), {}, {}),
        ((), {"messages": MESSAGES}, {}),
        ((MESSAGES, TOOLS), {}, {"tools": TOOLS}),
        ((MESSAGES, None, {"top_k": 1}), {}, {"top_k": 1}),
        ((MESSAGES, TOOLS, False), {}, {"tools": TOOLS, **THINKING}),
        ((MESSAGES, TOOLS, None, {"top_k": 1}), {}, {"tools": TOOLS, "top_k": 1}),
        ((MESSAGES,), {"enable_thinking": False, "tools": TOOLS}, {"tools": TOOLS, **THINKING}),
    ],
)
def test_a_chat_with_messages(args: Any, kwargs: Any, body: Any) -> None:
    assert sent(*args, **kwargs) == {"messages": MESSAGES, **body}


@in_one_test(
    ("args", "kwargs", "body"),
    [
        (("Hi",), {}, {"messages": MESSAGES}),
        ((), {"prompt": "Hi"}, {"messages": MESSAGES}),
        (("Hi", "Be brief."), {}, {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]}),
        (("Hi", None, HISTORY), {}, {"messages": [*HISTORY, *MESSAGES]}),
        (("Hi",), {"chat_history": HISTORY}, {"messages": [*HISTORY, *MESSAGES]}),
        (("Hi", None, None, TOOLS, {"top_k": 1}), {}, {"messages": MESSAGES, "tools": TOOLS, "top_k": 1}),
        (("Hi",), {"generate_config": {"top_k": 1}}, {"messages": MESSAGES, "top_k": 1}),
    ],
)
def test_a_chat_with_a_prompt_is_deprecated_and_works(args: Any, kwargs: Any, body: Any) -> None:
    with pytest.deprecated_call():
        assert sent(*args, **kwargs) == body


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((MESSAGES,), {"prompt": "Hi"}),
        ((MESSAGES,), {"system_prompt": "Be brief."}),
        ((MESSAGES, TOOLS), {"tools": TOOLS}),
        ((MESSAGES, TOOLS, True, {}, "more"), {}),
    ],
)
def test_arguments_that_make_no_sense_are_type_errors(args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError):
        sent(*args, **kwargs)


def test_thinking_joins_what_the_template_is_told_otherwise() -> None:
    config = {"chat_template_kwargs": {"style": "short"}}
    kwargs = sent(MESSAGES, enable_thinking=True, generate_config=config)["chat_template_kwargs"]
    assert kwargs == {"style": "short", "enable_thinking": True, "thinking": True}
    assert config == {"chat_template_kwargs": {"style": "short"}}
