"""Requests to the management API wait until its application is loaded."""

from __future__ import annotations

import asyncio
import logging
import threading

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from xinference.api.management import Management


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def client_of(app: ASGIApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")


async def test_requests_wait_until_it_is_loaded_once_and_the_loop_goes_on_meanwhile() -> None:
    built, go = [], threading.Event()

    def build() -> ASGIApp:
        go.wait(60)
        built.append(threading.current_thread())
        return ok

    management = Management(build)
    management.begin()
    async with client_of(management) as client:
        asked = [asyncio.create_task(client.get(path)) for path in ("/a", "/b")]
        await asyncio.sleep(0)  # the loop is free, although `build` waits
        assert built == []
        go.set()
        assert [(await each).text for each in asked] == ["/a", "/b"]
        assert (await client.get("/c")).text == "/c"
    assert len(built) == 1 and built[0] is not threading.main_thread()


async def test_a_request_that_comes_first_begins_it() -> None:
    async with client_of(Management(lambda: ok)) as client:
        assert (await client.get("/a")).text == "/a"


async def test_a_client_that_leaves_does_not_end_it_for_the_others() -> None:
    go = threading.Event()

    def build() -> ASGIApp:
        go.wait(60)
        return ok

    async with client_of(Management(build)) as client:
        left, stays = (asyncio.create_task(client.get(path)) for path in ("/left", "/stays"))
        for _ in range(5):
            await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        go.set()
        assert (await stays).text == "/stays"


async def test_what_cannot_be_loaded_is_logged_and_answered_with_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    def build() -> ASGIApp:
        raise ImportError("no such module")

    async with client_of(Management(build)) as client:
        answer = await client.post("/v1/keys")
    problem = answer.json()["problem"]
    assert (answer.status_code, problem["code"]) == (503, "management_not_loaded")
    assert "no such module" in problem["cause"] and "upgraded" in problem["hint"]
    assert [record.levelno for record in caplog.records if "cannot be loaded" in record.message] == [logging.CRITICAL]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ImportError("cannot import name 'a' from 'x.b' (/home/me/my x/b.py)"),
            "ImportError: cannot import name 'a' from 'x.b'",
        ),
        (SyntaxError("invalid syntax", ("/home/me/x/b.py", 3, 1, "x", 3, 1)), "SyntaxError: invalid syntax"),
        (ImportError("/home/me/lib.so: undefined symbol: f"), "ImportError"),
        (FileNotFoundError(2, "No such file or directory", "/home/me/x"), "FileNotFoundError"),
    ],
)
async def test_the_answer_names_no_path_of_the_machine(error: Exception, reason: str) -> None:
    def build() -> ASGIApp:
        raise error

    async with client_of(Management(build)) as client:
        answer = await client.get("/v1/cluster/auth")
    assert answer.json()["problem"]["cause"] == f"The management API can't be loaded: {reason}."
    assert "/home" not in answer.text


async def test_files_that_changed_while_they_were_loaded_are_loaded_by_the_next_request() -> None:
    states = iter([SyntaxError("half a file"), ImportError("no such name"), None])

    def build() -> ASGIApp:
        if (error := next(states)) is not None:
            raise error
        return ok

    async with client_of(Management(build)) as client:
        assert [(await client.get("/a")).status_code for _ in range(4)] == [503, 503, 200, 200]
