"""What reaches each engine, by path, headers and body: through the whole gateway, to stand-ins that record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.auth.test_authentication import ALL, bearer, keys_of
from tests.gateway.harness import CHAT
from tests.gateway.recording import recording_gateway
from xinference.gateway.routes import DATA_PATHS

pytestmark = pytest.mark.process

ENGINES = ("llama.cpp", "vLLM", "SGLang", "Transformers")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
#: A body for each path of clients.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/v1/embeddings": {"model": "m", "input": "a"},
    "/v1/responses": {"model": "m", "input": "a"},
    "/v1/messages": CHAT | {"max_tokens": 1},
    "/v1/messages/count_tokens": CHAT,
    "/anthropic/v1/messages": CHAT | {"max_tokens": 1},
    "/anthropic/v1/messages/count_tokens": CHAT,
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["d"]},
    "/v1/reranking": {"model": "m", "query": "q", "documents": ["d"]},
    "/v2/rerank": {"model": "m", "query": "q", "documents": ["d"]},
    "/rerank": {"model": "m", "query": "q", "documents": ["d"]},
    "/v1/score": {"model": "m", "text_1": "q", "text_2": "d"},
    "/v1/convert_ids_to_tokens": {"model": "m", "input": [1]},
    "/tokenize": {"model": "m", "content": "a"},
    "/v1/tokenize": {"model": "m", "content": "a"},
    "/detokenize": {"model": "m", "tokens": [1]},
    "/v1/detokenize": {"model": "m", "tokens": [1]},
    "/apply-template": CHAT,
    "/infill": {"model": "m", "input_prefix": "a", "input_suffix": "b"},
}


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_path_reaches_the_engine_with_its_own_key_and_no_header_of_the_client(
    engine: str, tmp_path: Path
) -> None:
    client = {"cookie": "c", "x-forwarded-for": "1.2.3.4", "anthropic-version": "2023-06-01", **bearer(ALL)}
    passed_on = {"anthropic-version", "accept", "content-type"}
    async with recording_gateway(engine, tmp_path, keys_of()) as at:
        assert BODIES.keys() == DATA_PATHS.keys()
        for path, body in BODIES.items():
            sent = await at.sent(f"{path}?a=1", body, headers=client)
            assert sent.path == f"{DATA_PATHS[path].upstream}?a=1"
            assert sent.headers["authorization"] == "Bearer fake-key"
            assert sent.headers.keys() - passed_on == {"host", "authorization", "content-length"}, path


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("llama.cpp", {"json_schema": SCHEMA}),
        ("vLLM", {"structured_outputs": {"json": SCHEMA}}),
        ("SGLang", {"json_schema": SCHEMA}),
    ],
)
async def test_a_schema_has_the_name_of_the_engine(engine: str, expected: dict[str, Any], tmp_path: Path) -> None:
    async with recording_gateway(engine, tmp_path) as at:
        sent = await at.sent("/v1/chat/completions", CHAT | {"guided_json": SCHEMA})
        assert sent.json == CHAT | expected


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_field_that_nobody_has_judged_does_not_arrive(engine: str, tmp_path: Path) -> None:
    async with recording_gateway(engine, tmp_path) as at:
        sent = await at.sent("/v1/chat/completions", CHAT | {"an_unknown_field": {"a": 1}, "top_k": 7})
        assert sent.json == CHAT | {"top_k": 7}


@pytest.mark.parametrize(
    ("engine", "field", "value"),
    [
        ("vLLM", "mm_processor_kwargs", {"a": 1}),
        ("vLLM", "prompt_embeds", "AAAA"),
        ("vLLM", "chat_template", "{{ 7 }}"),
        ("SGLang", "lora_path", "/etc"),
        ("SGLang", "image_data", "http://127.0.0.1/"),
        ("SGLang", "custom_logit_processor", "gASV"),
        ("llama.cpp", "chat_template", "{{ 7 }}"),
    ],
)
async def test_a_field_that_no_client_may_set_is_refused_and_nothing_arrives(
    engine: str, field: str, value: Any, tmp_path: Path
) -> None:
    async with recording_gateway(engine, tmp_path) as at:
        error = await at.refused("/v1/chat/completions", CHAT | {field: value})
        assert (error["code"], error["param"]) in {("unsupported_field", field), ("media_address", field)}


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_address_arrives_nowhere_and_a_picture_arrives_as_it_came(engine: str, tmp_path: Path) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    address = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}

    def of(part: dict[str, Any]) -> dict[str, Any]:
        return CHAT | {"messages": [{"role": "user", "content": [part]}]}

    async with recording_gateway(engine, tmp_path) as at:
        assert (await at.sent("/v1/chat/completions", of(picture))).json == of(picture)
        assert (await at.refused("/v1/chat/completions", of(address)))["code"] == "media_address"


async def test_a_plain_body_arrives_byte_by_byte(tmp_path: Path) -> None:
    body = json.dumps(CHAT | {"temperature": 0.10}, indent=3).encode()
    async with recording_gateway("vLLM", tmp_path) as at:
        assert (await at.sent("/v1/chat/completions", body, headers={"content-type": "application/json"})).body == body
