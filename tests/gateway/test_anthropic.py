from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of, route


async def listing(path: str, **options: Any) -> tuple[int, Any]:
    router = HandMadeRouter()
    router.publish(route(uid="one"), route(uid="vectors", paths=frozenset({"/v1/embeddings"})))
    async with gateway_of(router) as gateway:
        answer = await call(gateway, path, method="GET", **options)
    return answer.status, answer.json


async def test_anthropics_listing_has_the_models_that_answer_messages() -> None:
    status, answer = await listing("/anthropic/v1/models")
    assert status == 200 and [model["id"] for model in answer["data"]] == ["one"]
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("one", "one", False)
    assert answer["data"][0]["type"] == "model"


async def test_one_of_anthropics_models_is_found_or_not_in_anthropics_form() -> None:
    assert (await listing("/anthropic/v1/models/one"))[1]["id"] == "one"
    status, answer = await listing("/anthropic/v1/models/vectors")
    assert status == 404 and answer["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(("given", "named"), [("", "required"), ("newest", "newest")])
async def test_messages_without_a_known_version_are_a_400_that_names_it(given: str, named: str) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}).encode()
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, "/v1/messages", body, headers={"anthropic-version": given})
    assert answer.status == 400 and named in answer.json["error"]["message"]
