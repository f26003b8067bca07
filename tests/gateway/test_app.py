from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.fakes.running import start_fake_engine
from tests.gateway.harness import (
    CHAT,
    STREAM,
    HandMadeRouter,
    call,
    gateway_of,
    route,
    router_of,
    router_to,
    served,
    target,
)
from tests.support.cases import in_one_test
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.http.asgi import Message, Reply
from xinference.gateway.routes import DATA_PATHS
from xinference.planning.eviction import HOST, Resident, no_room
from xinference.routing.table import RoutingTable, Target, with_other_names

CHAT_BYTES = json.dumps(CHAT).encode()
NOWHERE = Target("gone", "http://127.0.0.1:9", "k")


async def refused(router: HandMadeRouter, path: str, body: bytes, **options: Any) -> tuple[int, dict[str, Any]]:
    async with gateway_of(router) as gateway:
        answer = await call(gateway, path, body, **options)
    assert answer.headers[b"content-type"] == b"application/json"
    return answer.status, answer.json


async def test_health_answers_without_touching_anything() -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, "/health", method="GET")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
async def test_head_gives_the_length_and_no_body(path: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, path, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers[b"content-length"]) > 0


async def test_the_listing_is_the_tables_bytes_and_only_reading_it_is_ours() -> None:
    router = router_to(NOWHERE)
    async with gateway_of(router) as gateway:
        assert (await call(gateway, "/v1/models", method="GET")).body == router.table.listing
        assert (await call(gateway, "/v1/models")).body == b"management POST /v1/models"


@pytest.mark.parametrize("path", ["/", "/v1/unheard/of", "/v1/models/m", "/docs"])
async def test_every_other_path_goes_to_management(path: str) -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        assert (await call(gateway, path)).body == f"management POST {path}".encode()


async def test_get_on_a_post_path_is_405_with_allow() -> None:
    async with gateway_of(HandMadeRouter()) as gateway:
        answer = await call(gateway, "/v1/chat/completions", method="GET")
    assert (answer.status, answer.headers[b"allow"]) == (405, b"POST")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_415_and_named(kind: str) -> None:
    status, answer = await refused(
        router_to(NOWHERE), "/v1/chat/completions", CHAT_BYTES, headers={"content-type": kind}
    )
    assert status == 415
    assert kind in answer["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", ""])
async def test_json_or_no_content_type_is_taken(kind: str) -> None:
    headers = {"content-type": kind}
    status, answer = await refused(HandMadeRouter(), "/v1/chat/completions", CHAT_BYTES, headers=headers)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


async def test_a_wrong_shape_is_400_and_names_the_field() -> None:
    body = json.dumps(CHAT | {"temperature": 9}).encode()
    status, answer = await refused(router_to(NOWHERE), "/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["param"] == "temperature"
    assert answer["error"]["type"] == "invalid_request_error"


@in_one_test(
    ("path", "field"),
    [
        ("/v1/chat/completions", b'"a":[{"b":1e999}]'),
        ("/v1/chat/completions", b'"metadata":{"b":"://"},"a":-1e999'),
        ("/v1/chat/completions", b'"response_format":{"a":[[1e999]],"pattern":1}'),
        ("/v1/chat/completions", b'"tools":[{"type":"function","function":{"name":"f","parameters":{"$ref":1e999}}}]'),
        ("/v1/chat/completions", b'"guided_json":{"allOf":1%b}' % (b"0" * 5000)),
        ("/v1/completions", b'"prompt":"a","typical_p":1e999'),
        ("/v1/responses", b'"input":"a","a":1e999'),
        ("/v1/messages", b'"max_tokens":1,"a":{"b":1e999}'),
        ("/v1/embeddings", b'"input":"a","a":1e999'),
        ("/tokenize", b'"content":"a","a":1e999'),
    ],
)
async def test_a_number_that_nothing_can_hold_is_400_wherever_it_stands(path: str, field: bytes) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}],%b}' % field
    router = router_to(NOWHERE)
    router.publish(route(NOWHERE, paths=frozenset(DATA_PATHS), engine="llama.cpp"))
    status, answer = await refused(router, path, body)
    assert (status, answer["error"].get("code")) == (400, None if path == "/v1/messages" else "invalid_json")
    assert "out of range" in answer["error"]["message"]


async def test_an_unknown_model_is_404_with_the_near_match_and_the_list() -> None:
    router = HandMadeRouter()
    router.publish(route(NOWHERE, uid="llama-2-chat"), route(NOWHERE, uid="qwen"))
    body = json.dumps(CHAT | {"model": "llama-2-caht"}).encode()
    status, answer = await refused(router, "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "Did you mean 'llama-2-chat'?" in answer["error"]["message"]
    assert "qwen" in answer["error"]["message"]


async def test_a_path_the_engine_does_not_serve_is_400_with_those_it_does() -> None:
    router = HandMadeRouter()
    router.publish(route(NOWHERE, paths=frozenset({"/v1/chat/completions"})))
    status, answer = await refused(router, "/v1/embeddings", b'{"model":"m","input":"x"}')
    assert (status, answer["error"]["code"]) == (400, "unsupported_path")
    assert "/v1/chat/completions" in answer["error"]["message"]
    assert "llama.cpp" in answer["error"]["message"]


@in_one_test(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "a", "text_2": "b"}),
        ("/v2/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/reranking", {"query": "a", "documents": ["b"]}),
        ("/v1/responses", {"input": "a"}),
        ("/v1/convert_ids_to_tokens", {"input": [1]}),
    ],
)
async def test_a_path_that_no_model_serves_is_named_as_the_client_wrote_it(path: str, body: dict[str, Any]) -> None:
    router = HandMadeRouter()
    router.publish(route(NOWHERE, paths=frozenset({"/v1/embeddings"})))
    status, answer = await refused(router, path, json.dumps(body | {"model": "m"}).encode())
    assert (status, answer["error"]["code"]) == (400, "unsupported_path")
    assert f"does not serve {path};" in answer["error"]["message"]
    assert f"No running model serves {path}." in answer["error"]["message"]


async def test_a_failed_model_is_503_with_its_cause() -> None:
    router = HandMadeRouter()
    router.publish(route(problem=Problem("out_of_memory", "It needs 9 GB.", status=503, hint="Take a smaller one.")))
    status, answer = await refused(router, "/v1/chat/completions", CHAT_BYTES)
    assert (status, answer["error"]["code"]) == (503, "model_failed")
    assert "It needs 9 GB. Take a smaller one." in answer["error"]["message"]
    assert answer["error"]["type"] == "server_error"


async def test_a_loading_model_is_503_with_its_stage_and_retry_after() -> None:
    router = HandMadeRouter()
    router.publish(route(stage="fetch", retry_after=17))
    async with gateway_of(router) as gateway:
        answer = await call(gateway, "/v1/chat/completions", CHAT_BYTES)
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"17")
    assert answer.json["error"]["code"] == "model_loading"
    assert "fetch" in answer.json["error"]["message"]
    assert router.waits == []


async def test_anthropics_paths_refuse_in_anthropics_form() -> None:
    body = json.dumps(CHAT | {"max_tokens": 1}).encode()
    status, answer = await refused(HandMadeRouter(), "/v1/messages", body)
    assert (status, answer["type"], answer["error"]["type"]) == (404, "error", "not_found_error")
    router = HandMadeRouter()
    router.publish(route(stage="start"))
    status, answer = await refused(router, "/anthropic/v1/messages", body)
    assert (status, answer["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.process
async def test_a_body_in_pieces_is_put_together() -> None:
    async with start_fake_engine(echo=True) as engine, gateway_of(router_of(engine)) as gateway:
        answer = await call(gateway, "/v1/chat/completions", pieces=[CHAT_BYTES[:9], CHAT_BYTES[9:], b""])
    assert answer.json["body"].encode() == CHAT_BYTES


@pytest.mark.process
async def test_the_engine_gets_the_same_bytes_our_key_and_not_the_clients() -> None:
    body = b'{ "model" : "m",  "messages":[{"role":"user","content":"\xc3\xa9"}], "temperature": 1.50 }'
    headers = {"Authorization": "Bearer mine", "Content-Type": "application/json", "anthropic-version": "2023-06-01"}
    headers |= {"Cookie": "a=b", "X-Forwarded-User": "somebody"}
    async with start_fake_engine(echo=True, api_key="ours") as engine, served(router_of(engine)) as gateway:
        status, seen, _ = await gateway.post("/v1/chat/completions?beta=true&x=%26", body, headers=headers)
    assert status == 200
    assert seen["body"].encode() == body
    assert seen["path"] == "/v1/chat/completions?beta=true&x=%26"
    assert seen["headers"]["authorization"] == "Bearer ours"
    assert seen["headers"]["content-type"] == "application/json"
    assert seen["headers"]["anthropic-version"] == "2023-06-01"
    assert not {"cookie", "x-forwarded-user", "user-agent", "accept-encoding"} & seen["headers"].keys()


@pytest.mark.process
async def test_a_request_for_an_alias_is_one_for_its_deployment() -> None:
    async with start_fake_engine(echo=True) as engine:
        router = HandMadeRouter()
        base = route(target(engine), aliases=("gpt-4o",), request_limits=1)
        router.current = RoutingTable(with_other_names({"m": base}))
        async with served(router) as gateway:
            status, seen, _ = await gateway.post("/v1/chat/completions", CHAT | {"model": "gpt-4o", "top_k": 3})
            assert status == 200 and json.loads(seen["body"]) == CHAT | {"model": "m", "top_k": 3}
            assert 'model="m"' in gateway.gateway.metrics.text().decode()
            assert "gpt-4o" not in gateway.gateway.metrics.text().decode()


@pytest.mark.process
async def test_anthropics_prefix_is_taken_off() -> None:
    async with start_fake_engine(echo=True) as engine, served(router_of(engine)) as gateway:
        _, seen, _ = await gateway.post("/anthropic/v1/messages", CHAT | {"max_tokens": 1})
    assert seen["path"] == "/v1/messages"


@pytest.mark.process
async def test_a_whole_answer_keeps_its_length_and_chosen_headers() -> None:
    headers = {"X-Request-Id": "r-1", "Set-Cookie": "a=b", "Server": "engine"}
    async with start_fake_engine(headers=headers) as engine, served(router_of(engine)) as gateway:
        status, answer, got = await gateway.post("/v1/chat/completions", CHAT)
    assert (status, answer["object"]) == (200, "chat.completion")
    assert int(got["content-length"]) > 0
    assert got["x-request-id"] == "r-1"
    assert "set-cookie" not in got
    assert "server" not in got


@pytest.mark.process
async def test_an_engines_error_takes_openais_form() -> None:
    error = {"code": 400, "message": "x", "type": "exceed_context_size_error", "n_prompt_tokens": 4097, "n_ctx": 8192}
    async with start_fake_engine(status=400, body={"error": error}) as engine, served(router_of(engine)) as gateway:
        status, answer, _ = await gateway.post("/v1/chat/completions", CHAT)
        anthropic_status, anthropic, _ = await gateway.post("/v1/messages", CHAT | {"max_tokens": 1})
    message = "This model's maximum context length is 4096 tokens, but the prompt has 4097 tokens. Shorten it."
    code, kind = "context_length_exceeded", "invalid_request_error"
    assert status == anthropic_status == 400
    assert answer["error"] == {"message": message, "type": kind, "param": "messages", "code": code}
    assert answer["detail"] == message
    assert anthropic == {"type": "error", "error": {"type": kind, "message": message}}


@pytest.mark.process
async def test_too_large_a_body_is_413_and_the_connection_stays_good() -> None:
    large = json.dumps(CHAT | {"x": "y" * 300_000}).encode()

    async def pieces() -> Any:
        for at in range(0, len(large), 10_000):
            yield large[at : at + 10_000]
            await asyncio.sleep(0)

    connector = aiohttp.TCPConnector(limit=1)
    async with (
        start_fake_engine() as engine,
        served(router_of(engine), max_body_bytes=1000) as gateway,
        aiohttp.ClientSession(connector=connector) as http,
    ):
        for body in (large, pieces(), large):
            headers = {"Content-Type": "application/json"}
            async with http.post(gateway.url + "/v1/chat/completions", data=body, headers=headers) as response:
                answer = await response.json()
                assert response.status == 413
                assert answer["error"]["code"] == "request_too_large"
                assert "1000 bytes" in answer["error"]["message"]
            async with http.post(gateway.url + "/v1/chat/completions", json=CHAT) as response:
                assert response.status == 200


async def test_a_large_body_by_content_length_is_refused_before_it_is_read() -> None:
    async with gateway_of(HandMadeRouter(), max_body_bytes=10) as gateway:
        headers = {"content-length": "11", "expect": "100-continue"}
        answer = await call(gateway, "/v1/messages", pieces=[b"never read"], headers=headers)
    assert answer.status == 413
    assert answer.json["error"]["type"] == "request_too_large"
    assert answer.headers[b"connection"] == b"close"


async def test_a_bug_of_ours_is_a_json_500() -> None:
    class Broken(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Any:
            raise RuntimeError("a secret")

    router = Broken()
    router.publish(route(recovering=True))
    status, answer = await refused(router, "/v1/chat/completions", CHAT_BYTES)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (500, "internal_error", "server_error")
    assert "secret" not in answer["error"]["message"]


async def test_who_holds_the_room_that_a_model_lacks_is_not_told_to_clients() -> None:
    class Full(HandMadeRouter):
        async def ensure_ready(self, uid: str, deadline: float) -> Any:
            raise no_room(uid, {HOST: 2 << 30}, {}, [Resident("a secret", "in_use", {HOST: 1 << 30})])

    router = Full()
    router.publish(route(on_demand=True))
    status, answer = await refused(router, "/v1/chat/completions", CHAT_BYTES)
    assert (status, answer["error"]["code"]) == (503, "no_room")
    assert "needs 2.0 GiB" in answer["error"]["message"] and "secret" not in json.dumps(answer)


@pytest.mark.process
async def test_two_replicas_share_the_requests() -> None:
    async with start_fake_engine(delay=0.2) as one, start_fake_engine(delay=0.2) as two:
        async with served(router_of(one, two)) as gateway:
            await asyncio.gather(*(gateway.post("/v1/chat/completions", CHAT) for _ in range(6)))
            assert gateway.gateway.balancer.total == 0
        assert (await one.stats())["requests"] == (await two.stats())["requests"] == 3


@pytest.mark.process
async def test_an_answer_is_started_once_and_ended_once() -> None:
    async with start_fake_engine(chunks=2) as engine, gateway_of(router_of(engine)) as gateway:
        for body in (CHAT, STREAM):
            answer = await call(gateway, "/v1/chat/completions", json.dumps(body).encode())
            assert answer.status == 200
            assert [message.get("more_body", False) for message in answer.messages[1:]].count(False) == 1


@pytest.mark.parametrize("error", [Problem(Code.NO_ROOM, "No room."), RuntimeError("a bug")], ids=["problem", "bug"])
async def test_an_error_after_the_answer_began_leaves_it_incomplete(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def forward(_call: Any, _route: Any, reply: Reply) -> None:
        send = reply.send

        async def note(message: Message) -> None:
            sent.append(message["type"])
            await send(message)

        reply.send = note
        await reply.start(200, ())
        await reply.send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise error

    async with served(router_to(NOWHERE)) as gateway:
        monkeypatch.setattr(gateway.gateway._forwarder, "forward", forward)
        async with gateway.http.post(f"{gateway.url}/v1/chat/completions", json=CHAT) as answer:
            assert await answer.content.readexactly(5) == b"begun"
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
    assert sent == ["http.response.start", "http.response.body"]
