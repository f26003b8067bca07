"""The refusal of a wrong value names the values that are allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xinference.engines.dialects import DIALECTS
from xinference.gateway.routes import DATA_PATHS
from xinference.protocol import requests
from xinference.protocol.errors import Refusal
from xinference.protocol.literal_values import literal_values
from xinference.protocol.request_check import check

ROLES = "assistant, developer, function, system, tool, user"
CHATS = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "body", "param", "text"),
    [
        (
            CHATS,
            {"messages": [{"role": "robot", "content": "a"}]},
            "messages[0].role",
            f"'robot', expected one of {ROLES}.",
        ),
        (
            CHATS,
            {"messages": [{"role": "", "content": "a"}]},
            "messages[0].role",
            f"invalid value '', expected one of {ROLES}.",
        ),
        ("/v1/messages", {"messages": [{"role": "x"}], "max_tokens": 1}, "messages[0].role", ROLES),
        ("/apply-template", {"messages": [{"role": "x"}]}, "messages[0].role", ROLES),
        (
            "/v1/embeddings",
            {"input": "a", "encoding_format": "hex"},
            "encoding_format",
            "'hex', expected one of base64, float.",
        ),
    ],
)
def test_the_values_that_are_allowed_are_listed(path: str, body: dict[str, Any], param: str, text: str) -> None:
    with pytest.raises(Refusal) as caught:
        check(DATA_PATHS[path].decoder, json.dumps({"model": "m"} | body).encode())
    assert caught.value.param == param and text in caught.value.cause


def test_a_long_value_is_not_shown_in_full() -> None:
    body = {"model": "m", "messages": [{"role": "r" * 10_000, "content": "a"}]}
    with pytest.raises(Refusal) as caught:
        check(DATA_PATHS[CHATS].decoder, json.dumps(body).encode())
    assert len(caught.value.cause) < 300


@pytest.mark.parametrize("path", ["messages[0]", "messages[0].content[0].text", "nothing", "model", "logit_bias[...]"])
def test_a_field_of_another_type_has_no_list(path: str) -> None:
    assert literal_values(requests.Chat, path) == ()


def test_nested_forms_and_unions_are_followed() -> None:
    assert "image_url" in literal_values(requests.Chat, "messages[3].content[1].content[0].type")
    for dialect in DIALECTS.values():
        assert literal_values(dialect.native.form, "top_k") == ()
