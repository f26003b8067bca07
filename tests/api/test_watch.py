"""The stream of changes over REST: its scopes, its refusals, and its first event."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.api.test_requests import Api, key
from xinference.keys.key import Key
from xinference.keys.visibility import SCOPE_KEY


async def first_events(app: FastAPI, query: str = "", holder: Key | None = None, count: int = 2) -> tuple[Any, bytes]:
    """The head and the first pieces of a stream, whose client then leaves."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": "/v1/watch",
        "raw_path": b"/v1/watch",
        "query_string": query.encode(),
        "headers": [(b"accept-encoding", b"gzip")],
        SCOPE_KEY: holder,
    }
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await messages.put(message)

    serving = asyncio.create_task(app(scope, receive, send))
    async with asyncio.timeout(30):
        head = await messages.get()
        pieces = [(await messages.get())["body"] for _ in range(count)]
        left.set()
        await serving
    return head, b"".join(pieces)


async def test_the_stream_begins_with_a_snapshot_and_ends_with_its_client(app: FastAPI) -> None:
    head, stream = await first_events(app)
    headers = dict(head["headers"])
    assert head["status"] == 200 and headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-accel-buffering"] == b"no" and b"content-encoding" not in headers
    (line,) = [line for line in stream.splitlines() if line.startswith(b"data: ")]
    snapshot = json.loads(line.removeprefix(b"data: "))
    assert snapshot["models"] == snapshot["launches"] == snapshot["downloads"] == snapshot["requests"] == []
    assert app.state.watch.followers == 0


async def test_a_key_gets_the_topics_that_it_may_follow(tmp_path: Path) -> None:
    api = Api(tmp_path)
    async with api.client() as client:
        await refuses_the_topics_of_the_server(client)
    api.store.close()


async def refuses_the_topics_of_the_server(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/v1/watch?topics=x")).status_code == 400
    _, owner = await key(client, "owner", "manage")
    answer = await client.post("/v1/keys", json={"name": "one", "scopes": ["use"], "models": ["m"]}, headers=owner)
    mine = {"authorization": f"Bearer {answer.json()['key']}"}
    for topic in ("stats", "devices", "downloads"):
        refused = await client.get(f"/v1/watch?topics={topic}", headers=mine)
        assert refused.status_code == 403 and topic in refused.text
    assert (await client.get("/v1/watch")).status_code == 401


@pytest.mark.parametrize("topics", ["models", "models,requests"])
async def test_the_snapshot_has_the_chosen_topics(app: FastAPI, topics: str) -> None:
    _, stream = await first_events(app, f"topics={topics}")
    snapshot = json.loads(stream.split(b"data: ")[1].splitlines()[0])
    assert snapshot["topics"] == topics.split(",") == [name for name in snapshot if name in ("models", "requests")]
