"""The forms in which programs ask a chat to think, or not to: each reaches the engine, or is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.test_canonical_requests import ENGINES, refused, sent
from tests.support.cases import in_one_test

OFF = {"enable_thinking": False, "thinking": False}
ON = {"enable_thinking": True, "thinking": True}


@pytest.mark.parametrize("engine", ENGINES)
@in_one_test(
    ("fields", "wanted"),
    [
        ({"thinking": {"type": "disabled"}}, OFF),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ON),
        ({"thinking": False}, OFF),
        ({"think": False}, OFF),
        ({"think": True}, ON),
        ({"reasoning": {"effort": "none"}}, OFF),
        ({"reasoning": {"enabled": False, "exclude": True}}, OFF),
        ({"thinking": {"type": "disabled"}, "enable_thinking": True}, ON),
    ],
)
def test_the_switch_is_passed_to_the_template(engine: str, fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    body = sent(engine, **fields)
    assert body["chat_template_kwargs"] == wanted and not body.keys() & {"thinking", "reasoning"}


@in_one_test(
    ("fields", "effort"),
    [
        ({"reasoning": {"effort": "low", "summary": "auto"}}, "low"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, "high"),
        ({"think": "low"}, "low"),
    ],
)
def test_the_effort_is_passed_in_the_field_of_a_chat(fields: dict[str, Any], effort: str) -> None:
    assert sent("vLLM", **fields)["reasoning_effort"] == effort


@in_one_test("fields", [{"thinking": {"type": "adaptive"}}, {"thinking": {}}, {"thinking": None}, {"reasoning": {}}])
def test_an_object_that_leaves_it_to_the_model_sets_nothing(fields: dict[str, Any]) -> None:
    assert sent("vLLM", **fields) == sent("vLLM")


@in_one_test(
    ("fields", "param"),
    [
        ({"thinking": {"type": "much"}}, "thinking.type"),
        ({"thinking": "on"}, "thinking"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"reasoning": {"effort": ["low"]}}, "reasoning.effort"),
        ({"reasoning": {"enabled": "no"}}, "reasoning.enabled"),
        ({"reasoning": "high"}, "reasoning"),
        ({"think": "loudly"}, "think"),
        ({"think": 5}, "think"),
    ],
)
def test_a_wrong_value_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param
