from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.harness import HandMadeRouter, call, gateway_of, route


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}),
        ("/v1/chat/completions", {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        ("/v1/chat/completions", {"type": "audio_url", "audio_url": {"url": "https://a.b/c"}}),
        ("/v1/messages", {"type": "image", "source": {"type": "url", "url": "https://a.b/c"}}),
        ("/v1/responses", {"type": "input_image", "image_url": "https://a.b/c"}),
    ],
)
async def test_media_is_never_fetched_from_an_address(path: str, message: dict[str, Any]) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    body = json.dumps({"model": "m", "max_tokens": 1, field: [{"role": "user", "content": [message]}]}).encode()
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, path, body)
    assert answer.status == 400 and "data: URI" in answer.json["error"]["message"]


async def test_the_wrong_route_for_a_model_names_the_right_one_and_who_serves_it() -> None:
    router = HandMadeRouter()
    router.publish(route(uid="talks"), route(uid="vectors", paths=frozenset({"/v1/embeddings"})))
    body = json.dumps({"model": "vectors", "messages": [{"role": "user", "content": "x"}]}).encode()
    async with gateway_of(router) as gateway:
        answer = await call(gateway, "/v1/chat/completions", body)
    message = answer.json["error"]["message"]
    assert answer.status == 400 and "/v1/embeddings" in message and "talks" in message
