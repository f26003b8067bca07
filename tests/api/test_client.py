"""Client methods whose answer only the server itself can show: what is unsupported, and what has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fastapi import FastAPI

from tests.client.test_requests import UNSUPPORTED
from tests.gateway.harness import listening
from tests.support.cases import in_one_test
from xinference.client import AsyncClient, Client
from xinference.errors import Problem
from xinference.gateway.http.asgi import ASGIApp
from xinference.routing.abortable_requests import AbortableRequests

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("relaunch_api", {}),
    ("get_api_relaunch", {"operation_id": "o"}),
    ("list_api_relaunches", {}),
    ("relaunch_supervisor", {}),
    ("get_supervisor_relaunch", {"operation_id": "o"}),
    ("list_supervisor_relaunches", {}),
    ("relaunch_worker", {"worker_address": "127.0.0.1:1"}),
    ("get_worker_relaunch", {"operation_id": "o"}),
    ("list_worker_relaunches", {}),
]


@pytest.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The management API on a loopback port."""
    async with listening(cast("ASGIApp", app)) as (_, _, url):
        yield url


def test_every_unsupported_method_is_called_here() -> None:
    assert {method for method, _ in CALLS} == UNSUPPORTED


@pytest.mark.parametrize(("method", "arguments"), CALLS)
async def test_an_unsupported_method_raises_501_with_the_alternative(
    url: str, method: str, arguments: dict[str, Any]
) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(Problem) as awaited:
            await getattr(client, method)(**arguments)
    with Client(url, check=False) as waiting, pytest.raises(Problem) as called:
        await asyncio.to_thread(getattr(waiting, method), **arguments)
    for problem in (awaited.value, called.value):
        assert (problem.code, problem.status) == ("not_here", 501)
        assert "xinference serve" in (problem.hint or "")


@in_one_test("method", sorted(UNSUPPORTED))
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
