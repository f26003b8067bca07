from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import aiohttp
import pytest

from tests.gateway.harness import gateway_of, listening, management, router_of
from tests.support.polling import until_async
from xinference.gateway.http import server as http_server
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.server import Server


def by_a_call(server: Server) -> None:
    server.stop()


def by_a_signal(_server: Server) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("end", [by_a_call, by_a_signal])
async def test_a_server_that_sleeps_ends_as_soon_as_it_is_told(
    end: Callable[[Server], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "DATE_SECONDS", 3600.0)
    async with gateway_of(router_of()) as gateway, listening(gateway) as (server, task, _):
        end(server)
        await asyncio.wait_for(task, 10)


async def test_a_closed_terminal_ends_a_server_as_sigterm_does() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    try:
        async with gateway_of(router_of()) as gateway, listening(gateway) as (server, task, _):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(task, 10)
            assert server.ended_by == signal.SIGHUP
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_server_under_nohup_goes_on_when_its_terminal_closes() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        async with gateway_of(router_of()) as gateway, listening(gateway) as (server, _, _):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not server.should_exit
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_the_date_of_answers_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "DATE_SECONDS", 0.01)
    async with gateway_of(router_of()) as gateway, listening(gateway) as (server, _, _):
        before = server.server_state.default_headers
        await until_async("the date changes", lambda: server.server_state.default_headers != before)


@pytest.mark.parametrize(("trusted", "scheme"), [("127.0.0.1", "https"), ("10.0.0.1", "http")])
async def test_the_management_api_knows_the_scheme_that_a_trusted_proxy_was_asked_with(
    trusted: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schemes = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await management(scope, receive, send)

    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    async with (
        gateway_of(router_of(), app, allow_unauthenticated=True) as gateway,
        listening(gateway) as (_, _, url),
        aiohttp.ClientSession(headers={"x-forwarded-proto": "https"}) as http,
        http.get(f"{url}/docs") as answer,
    ):
        assert (answer.status, schemes) == (200, [scheme])
