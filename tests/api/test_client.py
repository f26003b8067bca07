"""Client methods whose answer only the server itself can show: what is unsupported, and what has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fastapi import FastAPI

from tests.client.test_requests import UNSUPPORTED
from tests.gateway.harness import listening
from xinference.client import AsyncClient, Client
from xinference.errors import Problem
from xinference.gateway.http.asgi import ASGIApp
from xinference.routing.abortable_requests import AbortableRequests

CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("get_progress", {"request_id": "r"}, "/v1/models/{model_uid}/progress"),
    ("get_autostart_config", {}, "xinference launch"),
    ("get_autostart_model_summary", {}, "xinference launch"),
    ("upsert_autostart_model", {"entry": {"model_uid": "m"}}, "xinference launch"),
    ("remove_autostart_model", {"model_uid": "a/b"}, "xinference terminate"),
]


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The management API on a loopback port."""
    async with listening(cast("ASGIApp", app)) as (_, _, url):
        yield url


def test_every_unsupported_method_is_called_here() -> None:
    assert {method for method, _, _ in CALLS} == UNSUPPORTED


@pytest.mark.parametrize(("method", "arguments", "alternative"), CALLS)
async def test_an_unsupported_method_raises_501_with_the_alternative(
    url: str, method: str, arguments: dict[str, Any], alternative: str
) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(Problem) as awaited:
            await getattr(client, method)(**arguments)
    with Client(url, check=False) as waiting, pytest.raises(Problem) as called:
        await asyncio.to_thread(getattr(waiting, method), **arguments)
    for problem in (awaited.value, called.value):
        assert (problem.code, problem.status) == ("not_here", 501)
        assert alternative in (problem.hint or "")


@pytest.mark.parametrize("method", sorted(UNSUPPORTED))
def test_an_unsupported_method_says_so_in_its_documentation(method: str) -> None:
    text = getattr(Client, method).__doc__
    assert text.startswith("Not supported") and "501 ``not_here``, always" in text


async def test_an_abort_does_not_block_a_later_request_with_the_same_id(
    app: FastAPI, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.controller, "deployment", lambda uid: None)
    requests: AbortableRequests = app.state.running
    begun = asyncio.Event()

    async def request() -> str:
        async with requests.abortable("m", "r") as running:
            begun.set()
            await asyncio.Event().wait()
        return "aborted" if running.aborted else "served"

    async with AsyncClient(url) as client:
        assert (await client.abort_request("m", "r", block_duration=600)) == {"msg": "NOT_FOUND"}
        later = asyncio.create_task(request())
        await begun.wait()
        assert not later.done()
        assert (await client.abort_request("m", "r")) == {"msg": "DONE"}
        assert await later == "aborted"
