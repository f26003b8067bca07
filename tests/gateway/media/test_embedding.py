"""Images by address through the gateway: the engine gets the image, and nothing is fetched that is not allowed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.gateway.auth.test_authentication import CountedKeys, bearer, keys_of
from tests.gateway.harness import Said, call, listening, router_to
from tests.gateway.media.image_server import HOST, PNG, Asked, Handle, Internet, http, internet
from tests.support.cases import in_one_test
from tests.support.loopback_server import serve_connections
from xinference.config import Settings
from xinference.gateway.app import Gateway
from xinference.gateway.media import embedding
from xinference.keys.key import Key
from xinference.keys.secret import digest
from xinference.routing.table import Target

CHAT, MESSAGES, COUNT, RESPONSES = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
)
URL = f"https://{HOST}/a.png"
CONTENT = base64.b64encode(PNG).decode()
DATA_URI = f"data:image/png;base64,{CONTENT}"
ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


@dataclass
class Stage:
    """A gateway that fetches images, its engine and its internet."""

    gateway: Gateway
    net: Internet
    bodies: list[Any]
    """The bodies that have reached the engine."""

    async def post(self, path: str, body: Any, **options: Any) -> Said:
        return await call(self.gateway, path, json.dumps(body).encode(), **options)


@contextlib.asynccontextmanager
async def stage(
    answers: Mapping[str, bytes | Handle] | None = None, *, keys: CountedKeys | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    bodies: list[Any] = []

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                bodies.append(json.loads(await reader.readexactly(length)))
                writer.write(http(ANSWER, "Content-Type: application/json"))
        writer.close()

    all_settings = {"allow_media_urls": "*", **settings}
    async with internet(answers or {"/a.png": http(PNG)}) as net, serve_connections(engine) as port:
        router = router_to(Target("r0", f"http://127.0.0.1:{port}", "key"))
        gateway = Gateway(router, Settings(**all_settings), _nothing, keys, image_network=net.network)
        try:
            yield Stage(gateway, net, bodies)
        finally:
            await gateway.close()


async def _nothing(*_: Any) -> None:
    raise AssertionError("no request is for the management API")


def key(name: str, models: set[str] | None = None) -> Key:
    return Key(name, name, digest(name.encode()), frozenset({"use"}), None if models is None else frozenset(models))


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    text = {"type": "text", "text": "What is this?"}
    return {"model": "m", "messages": [{"role": "user", "content": [text, *parts]}], **fields}


def image(url: str = URL) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def content(said: Any, n: int = 1) -> Any:
    return said["messages"][-1]["content"][n]


async def test_a_chats_image_reaches_the_engine_as_a_data_uri() -> None:
    async with stage() as at:
        said = await at.post(CHAT, chat(image(), {"type": "image_url", "image_url": URL}, image(DATA_URI)))
        assert said.status == 200, said.body
    (sent,) = at.bodies
    assert [content(sent, n)["image_url"] for n in (1, 2, 3)] == [{"url": DATA_URI}] * 3
    assert len(at.net.requests) == 1  # two places, one address


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
async def test_a_messages_image_reaches_the_engine_as_base64_also_inside_a_tools_result(path: str) -> None:
    source = {"type": "url", "url": URL}
    part = {"type": "image", "source": source}
    async with stage() as at:
        result = {"type": "tool_result", "tool_use_id": "1", "content": [part]}
        body = chat(part, result) | ({"max_tokens": 1} if path == MESSAGES else {})
        said = await at.post(path, body)
        assert said.status == 200, said.body
    (sent,) = at.bodies
    embedded = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": CONTENT}}
    assert content(sent) == embedded and content(sent, 2)["content"] == [embedded]


async def test_a_responses_image_reaches_the_engine_and_the_conversation_goes_on_with_it() -> None:
    async with stage() as at:
        item = {"role": "user", "content": [{"type": "input_image", "image_url": URL}]}
        first = await at.post(RESPONSES, {"model": "m", "input": [item]})
        assert first.status == 200, first.body
        following = {"model": "m", "input": "And?", "previous_response_id": first.json["id"]}
        assert (await at.post(RESPONSES, following)).status == 200
    for sent in at.bodies:
        assert sent["messages"][0]["content"][0]["image_url"]["url"] == DATA_URI
    assert len(at.net.requests) == 1


@pytest.mark.parametrize("allowed", ["", "other.test"])
async def test_images_are_not_fetched_unless_the_setting_names_their_host(allowed: str) -> None:
    async with stage(allow_media_urls=allowed) as at:
        said = await at.post(CHAT, chat(image()))
    assert (said.status, said.json["error"]["code"]) == (400, "media_address")
    assert said.json["error"]["param"] == "messages[0].content[1].image_url.url"
    assert not at.net.lookups and not at.bodies


@in_one_test(
    ("part", "param"),
    [
        ({"type": "audio_url", "audio_url": {"url": URL}}, "audio_url.url"),
        ({"type": "text", "text": "a", "video": URL}, "video"),
        ({"type": "image_url", "image_url": {"url": DATA_URI, "href": URL}}, "image_url.href"),
        ({"type": "text", "text": "a", "image_url": URL}, "image_url"),
        (image(f"http://{HOST}/a.png"), "image_url.url"),
        (image("file:///etc/passwd"), "image_url.url"),
    ],
)
async def test_no_other_address_becomes_possible(part: Any, param: str) -> None:
    async with stage() as at:
        said = await at.post(CHAT, chat(part))
    assert (said.status, said.json["error"]["code"]) == (400, "media_address")
    assert said.json["error"]["param"] == f"messages[0].content[1].{param}"
    assert not at.net.lookups and not at.bodies


async def test_one_address_that_is_not_allowed_keeps_all_from_being_fetched() -> None:
    async with stage() as at:
        said = await at.post(CHAT, chat(image(), image("https://u@images.test/")))
    assert said.status == 400 and not at.net.lookups


async def test_a_schema_with_an_address_is_refused_as_before() -> None:
    async with stage() as at:
        schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": URL}}}
        said = await at.post(CHAT, chat(response_format=schema))
    assert (said.status, said.json["error"]["code"]) == (400, "media_address") and not at.net.lookups


async def test_a_client_that_may_not_use_the_model_has_nothing_fetched() -> None:
    async with stage(keys=keys_of(key("other", {"other"}))) as at:
        said = await at.post(CHAT, chat(image()), headers=bearer("other"))
        assert said.status in (403, 404), said.body
        unknown = await at.post(CHAT, chat(image()) | {"model": 7}, headers=bearer("other"))
        assert (unknown.status, unknown.json["error"]["param"]) == (400, "model")
    assert not at.net.lookups


async def test_a_request_names_a_limited_number_of_images() -> None:
    async with stage() as at:
        said = await at.post(CHAT, chat(*(image(f"{URL}?{n}") for n in range(embedding.MAX_ADDRESSES + 1))))
    assert said.status == 400 and "at most 16 images" in said.json["error"]["message"] and not at.net.lookups


async def test_the_images_count_as_bytes_of_the_request() -> None:
    big = http(PNG + bytes(30_000))
    async with stage({"/a.png": big}, max_body_bytes=40_000) as at:
        assert (await at.post(CHAT, chat(image()))).status == 413
    async with stage({"/a.png": big}, max_bodies_bytes=40_000) as at:
        said = await at.post(CHAT, chat(image()))
        assert (said.status, said.json["error"]["code"]) == (503, "bodies_too_large")
        assert not at.gateway._bodies.held
    assert not at.bodies


async def test_clients_have_their_images_fetched_in_turn_and_others_are_answered_meanwhile() -> None:
    release = asyncio.Event()
    order: list[str] = []

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        order.append(asked.target)
        await release.wait()
        writer.write(http(PNG))

    targets = {f"/{client}{n}": slow for client in "ab" for n in range(12)}
    keys = keys_of(key("a"), key("b"))
    async with stage(targets, keys=keys) as at:

        def ask(client: str, count: int) -> asyncio.Task[Said]:
            images = (image(f"https://{HOST}/{client}{n}") for n in range(count))
            return asyncio.create_task(at.post(CHAT, chat(*images), headers=bearer(client)))

        first = ask("a", 12)
        while len(order) < embedding.AT_ONCE:
            await asyncio.sleep(0)
        second = ask("b", 1)
        plain = await at.post(CHAT, chat(), headers=bearer("b"))
        assert plain.status == 200 and len(order) == embedding.AT_ONCE
        release.set()
        assert [said.status for said in await asyncio.gather(first, second)] == [200, 200]
    assert order.index("/b0") == embedding.AT_ONCE  # before the rest of the first client's


async def test_a_client_that_leaves_ends_the_fetch_of_its_images() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
        began.set()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    async with stage({"/a.png": silent}) as at, listening(at.gateway) as (_, _, url):
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        body = json.dumps(chat(image())).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await began.wait()
        writer.close()
        await ended.wait()
    assert not at.bodies
