"""Responses through the gateway, with an engine that has chats only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import HandMadeRouter, call, gateway_of, route, router_of, target

pytestmark = pytest.mark.process

PATH = "/v1/responses"


def encoded(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


@pytest.mark.parametrize("engine", ["llama.cpp", "Transformers", "vLLM", "SGLang"])
async def test_every_engine_that_chats_has_responses(engine: str) -> None:
    async with start_fake_engine(chunks=2) as fake:
        router = HandMadeRouter()
        router.publish(route(target(fake), engine=engine))
        async with gateway_of(router) as gateway:
            said = await call(gateway, PATH, encoded())
            assert said.status == 200
            assert said.json["output"][0]["content"][0]["text"] and said.json["status"] == "completed"
            streamed = await call(gateway, PATH, encoded(stream=True))
            assert b"event: response.completed\n" in streamed.body and b"[DONE]" not in streamed.body


async def test_a_response_is_continued_read_and_deleted() -> None:
    async with start_fake_engine(chunks=1, text="word") as fake, gateway_of(router_of(fake)) as gateway:
        first = (await call(gateway, PATH, encoded())).json
        one = f"{PATH}/{first['id']}"
        assert (await call(gateway, one, method="GET")).json == first
        second = await call(gateway, PATH, encoded(input="more", previous_response_id=first["id"]))
        assert second.json["previous_response_id"] == first["id"]
        assert (await call(gateway, one, method="DELETE")).json == {
            "id": first["id"], "object": "response", "deleted": True,
        }  # fmt: skip
        for path, body, method in ((one, b"", "GET"), (PATH, encoded(previous_response_id=first["id"]), "POST")):
            missing = await call(gateway, path, body, method=method)
            assert (missing.status, missing.json["error"]["code"]) == (404, "response_not_found")
        assert (await call(gateway, one, method="PUT")).status == 405


async def test_a_response_that_is_not_to_be_stored_is_not() -> None:
    async with start_fake_engine(chunks=1) as fake, gateway_of(router_of(fake)) as gateway:
        first = (await call(gateway, PATH, encoded(store=False))).json
        assert (await call(gateway, f"{PATH}/{first['id']}", method="GET")).status == 404


async def test_a_mistake_is_a_400_in_openais_form() -> None:
    router = HandMadeRouter()
    router.publish(route())
    async with gateway_of(router) as gateway:
        said = await call(gateway, PATH, encoded(background=True))
        assert (said.status, said.json["error"]["param"]) == (400, "background")
