"""What a wrong body of the management API is told: the field, its value, and what it may be."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from xinference.api.invalid_body import invalid_body
from xinference.api.launch_body import LaunchBody


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"replica": "many"}, "replica is 'many', but must be a whole number."),
        (
            {"model_size_in_billions": [1]},
            "model_size_in_billions is [1], but must be a whole number, a number or a text.",
        ),
        ({"gpu_idx": {"a": 1}}, 'gpu_idx is {"a": 1}, but must be a whole number or a list.'),
        ({"n_gpu": "all"}, "n_gpu is 'all', but must be a whole number or 'auto'."),
        ({"replica": [True]}, "replica is [true], but must be a whole number."),
        ({"labels": "x"}, "labels is 'x', but must be an object."),
        ({"model_uid": 3}, "model_uid is 3, but must be a text."),
        ({"request_limits": -1}, "request_limits is -1, but must be at least 0."),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_the_types_that_it_may_have(
    fields: dict[str, Any], text: str
) -> None:
    body = {"model_name": "m", **fields}
    with pytest.raises(ValidationError) as caught:
        LaunchBody.model_validate(body)
    errors = [{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()]
    assert invalid_body(errors, body) == text


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        LaunchBody.model_validate({})
    errors = [{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()]
    assert invalid_body(errors, {}) == "model_name is required."


def test_a_request_without_a_body_is_named_as_that() -> None:
    missing = {"type": "missing", "loc": ("body",), "msg": "Field required"}
    assert invalid_body([missing], None) == "The request has no body; it must have one in JSON."


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=abc", "limit is 'abc', but must be a whole number."),
        ("limit=-1", "limit is '-1', but must be at least 1."),
        ("status=odd", "status is 'odd', but must be a text that matches ^"),
    ],
)
async def test_a_wrong_parameter_is_named_with_its_value(empty: httpx2.AsyncClient, query: str, text: str) -> None:
    assert (await empty.get(f"/v1/requests?{query}")).json()["detail"].startswith(text)


async def test_a_field_that_a_request_does_not_have_is_named(empty: httpx2.AsyncClient) -> None:
    answer = await empty.patch("/v1/models/m", json={"banana": 1})
    assert answer.json()["detail"] == "banana: the request has no such field."
