"""Messages through the gateway, with an engine that has chats and no messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import ANTHROPIC, HandMadeRouter, call, gateway_of, route, target
from tests.gateway.recording import recording_gateway

pytestmark = pytest.mark.process

CHATS = frozenset({"/v1/chat/completions", "/tokenize"})


def encoded(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def events(body: bytes) -> list[str]:
    return [line[7:].decode() for line in body.split(b"\n") if line.startswith(b"event: ")]


async def asked(fake: Any, path: str, body: bytes, **changes: Any) -> Any:
    router = HandMadeRouter()
    router.publish(route(target(fake), **{"paths": CHATS, **changes}))
    async with gateway_of(router) as gateway:
        return await call(gateway, path, body, headers=ANTHROPIC)


@pytest.mark.parametrize("engine", ["Transformers", "vLLM"])
@pytest.mark.parametrize("prefix", ["", "/anthropic"])
async def test_an_engine_with_chats_answers_messages(engine: str, prefix: str, tmp_path: Path) -> None:
    record = tmp_path / "record"
    async with start_fake_engine(chunks=2, record=str(record)) as fake:
        body = encoded(max_tokens=9, system="s")
        said = await asked(fake, f"{prefix}/v1/messages", body, engine=engine)
        assert said.status == 200
        assert said.json["content"] == [{"type": "text", "text": "word word "}]
        streamed = await asked(fake, f"{prefix}/v1/messages", encoded(max_tokens=9, stream=True), engine=engine)
        names = events(streamed.body)
        assert names[:2] == ["message_start", "content_block_start"]
        assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        assert b"[DONE]" not in streamed.body
    first = json.loads(record.read_text().splitlines()[0])
    assert first["path"] == "/v1/chat/completions" and json.loads(first["body"])["messages"][0]["role"] == "system"


SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}}
FORM = {"type": "json_schema", "schema": SCHEMA}


@pytest.mark.parametrize("engine", ["llama.cpp", "vLLM", "SGLang"])
@pytest.mark.parametrize(
    "fields",
    [{"output_config": {"format": FORM}}, {"output_format": FORM}, {"guided_json": SCHEMA}],
    ids=["output_config", "output_format", "guided_json"],
)
async def test_a_constraint_of_a_message_reaches_an_engine_whose_own_messages_may_ignore_it(
    engine: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    async with recording_gateway(engine, tmp_path) as at:
        sent = await at.sent("/v1/messages", json.loads(encoded(max_tokens=9, **fields)), headers=ANTHROPIC)
    assert sent.path == "/v1/chat/completions"
    assert json.dumps(SCHEMA) in json.dumps(sent.json)


@pytest.mark.parametrize("engine", ["llama.cpp", "vLLM", "SGLang"])
@pytest.mark.parametrize(
    ("name", "value"), [("seed", 5), ("min_p", 0.1), ("presence_penalty", 1.0), ("chat_template_kwargs", {"a": "b"})]
)
async def test_a_field_of_chats_reaches_an_engine_whose_own_messages_do_not_read_it(
    engine: str, name: str, value: Any, tmp_path: Path
) -> None:
    async with recording_gateway(engine, tmp_path) as at:
        sent = await at.sent("/v1/messages", json.loads(encoded(max_tokens=9, **{name: value})), headers=ANTHROPIC)
    assert sent.path == "/v1/chat/completions" and sent.json[name] == value


async def test_the_names_of_chat_fields_inside_a_tool_or_a_text_need_no_chat(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"seed": {"type": "string", "x-further": 1}}}
    body = json.loads(encoded(max_tokens=9, tools=[{"name": "format", "input_schema": schema}]))
    async with recording_gateway("llama.cpp", tmp_path) as at:
        sent = await at.sent("/v1/messages", body, headers=ANTHROPIC)
    assert sent.path == "/v1/messages"


async def test_a_message_without_a_constraint_is_answered_by_the_engines_own_messages(tmp_path: Path) -> None:
    body = json.loads(encoded(max_tokens=9, output_config={"effort": "low"}))
    async with recording_gateway("llama.cpp", tmp_path) as at:
        sent = await at.sent("/v1/messages", body, headers=ANTHROPIC)
    assert sent.path == "/v1/messages"


async def test_tokens_are_counted_by_the_engine(tmp_path: Path) -> None:
    async with start_fake_engine(record=str(tmp_path / "record")) as fake:
        said = await asked(fake, "/v1/messages/count_tokens", encoded(), engine="Transformers")
    assert (said.status, said.json) == (200, {"input_tokens": 1})
    assert json.loads((tmp_path / "record").read_text())["path"] == "/tokenize"


async def test_an_engine_that_dies_ends_the_stream_with_anthropics_error() -> None:
    async with start_fake_engine(chunks=5, die={"after_chunks": 2}) as fake:
        said = await asked(fake, "/v1/messages", encoded(max_tokens=9, stream=True))
    assert events(said.body)[0] == "message_start" and events(said.body)[-1] == "error"


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (500, "api_error")])
async def test_an_engines_refusal_has_anthropics_form(status: int, kind: str) -> None:
    async with start_fake_engine(status=status, body={"error": {"message": "no"}}) as fake:
        said = await asked(fake, "/v1/messages", encoded(max_tokens=9))
    assert (said.status, said.json["type"], said.json["error"]["type"]) == (status, "error", kind)


async def test_a_model_without_chats_refuses_messages_by_name() -> None:
    router = HandMadeRouter()
    router.publish(route(paths=frozenset({"/v1/embeddings", "/tokenize"})))
    async with gateway_of(router) as gateway:
        for path, body in (("/v1/messages", encoded(max_tokens=9)), ("/v1/messages/count_tokens", encoded())):
            said = await call(gateway, path, body, headers=ANTHROPIC)
            assert said.status == 400 and f"does not serve {path}" in said.json["error"]["message"]


async def test_a_model_with_chats_is_among_anthropics_models() -> None:
    router = HandMadeRouter()
    router.publish(route(paths=CHATS))
    async with gateway_of(router) as gateway:
        listed = await call(gateway, "/anthropic/v1/models", method="GET")
    assert [model["id"] for model in listed.json["data"]] == ["m"]
