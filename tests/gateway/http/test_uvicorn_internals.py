"""Every attribute of uvicorn that the server and its protocol use and that uvicorn does not document.

A version that lacks one fails here with its name. With a version that passes, and with the other tests of this folder,
the upper bound in pyproject.toml can be raised.
"""

from __future__ import annotations

import asyncio
import inspect
from operator import attrgetter
from typing import Any

import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from tests.gateway.harness import management
from tests.gateway.wire import Wire
from tests.support.cases import in_one_test
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.http.server import http_server
from xinference.gateway.http.uvicorn_protocol import Protocol

PROTOCOL_METHODS = (
    *("data_received", "connection_lost", "on_message_begin", "on_header", "on_headers_complete", "on_body"),
    *("on_message_complete", "send_400_response", "_start_asgi_task"),
)
SERVER_METHODS = ("main_loop", "handle_exit", "shutdown", "on_tick", "startup")
SERVER_ATTRIBUTES = (
    "should_exit",
    "force_exit",
    "started",
    "server_state.default_headers",
    "config.loaded",
    "config.uds",
)
CONNECTION_ATTRIBUTES = (
    *("transport", "loop", "headers", "scope", "pipeline", "server_state.default_headers"),
    *("flow.write_paused", "flow.resume_reading"),
    *("cycle.chunked_encoding", "cycle.response_started", "cycle.response_complete", "cycle.disconnected"),
    *("cycle.more_body", "cycle.keep_alive", "cycle.message_event.set", "cycle.on_response"),
    *("cycle.access_log", "cycle.default_headers"),
    *("cycle.send", "cycle.expected_content_length", "cycle.waiting_for_100_continue"),
)


async def connection() -> Protocol:
    """The server's side of a connection that has received a request's head."""
    config = http_server(management).config
    config.load()
    protocol = Protocol(config, ServerState(), {})
    protocol.connection_made(Wire(lambda _: None))
    protocol.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
    await asyncio.sleep(0)
    return protocol


@pytest.mark.parametrize("name", PROTOCOL_METHODS)
def test_the_protocol_has_the_method(name: str) -> None:
    assert inspect.isfunction(vars(HttpToolsProtocol).get(name)), f"uvicorn's HttpToolsProtocol has no {name}"


@in_one_test("name", CONNECTION_ATTRIBUTES)
async def test_a_connection_has_the_attribute(name: str) -> None:
    protocol = await connection()
    try:
        attrgetter(name)(protocol)
    except AttributeError as error:
        pytest.fail(f"uvicorn's connection has no {name}: {error}")


async def test_the_attributes_of_a_connection_have_the_meaning_that_they_had() -> None:
    protocol = await connection()
    cycle, scope = protocol.cycle, protocol.scope
    assert cycle.scope is scope and scope["headers"] is protocol.headers
    assert (cycle.more_body, cycle.keep_alive, cycle.disconnected, len(protocol.pipeline)) == (True, True, False, 0)
    assert (cycle.response_started, cycle.response_complete, cycle.chunked_encoding) == (True, True, True)
    protocol.data_received(b"{}GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert protocol.cycle is not cycle and protocol.cycle.scope is protocol.scope is not scope


async def test_a_request_behind_one_that_is_not_answered_yet_is_in_the_pipeline() -> None:
    config = http_server(management).config
    config.load()
    protocol = Protocol(config, ServerState(), {})
    protocol.connection_made(Wire(lambda _: None))
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
    assert protocol.cycle is protocol.pipeline[0][0] and not protocol.cycle.more_body


@pytest.mark.parametrize("line", ["GET / HTTP/1.1", "GET /a?b HTTP/1.1"], ids=["usual", "by-uvicorn"])
@pytest.mark.parametrize("answered", [0, 1, 2])
async def test_the_request_that_is_answered_before_others_learns_of_the_disconnect(line: str, answered: int) -> None:
    cycles: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        cycles.append(send.__self__)
        if len(cycles) > answered:
            await asyncio.Event().wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    config = http_server(app).config
    config.load()
    config.loaded_app = app
    protocol = Protocol(config, ServerState(), {})
    wire = Wire(lambda _: None)
    protocol.connection_made(wire)
    protocol.data_received(f"{line}\r\nHost: localhost\r\n\r\n".encode() * 3)
    for _ in range(20):
        await asyncio.sleep(0)
    protocol.connection_lost(None)
    assert [cycle.disconnected for cycle in cycles] == [False] * answered + [True]
    for task in list(protocol.tasks):
        task.cancel()


@pytest.mark.parametrize("name", SERVER_METHODS)
def test_the_server_has_the_method(name: str) -> None:
    assert inspect.isfunction(vars(uvicorn.Server).get(name)), f"uvicorn's Server has no {name}"


@in_one_test("name", SERVER_ATTRIBUTES)
def test_the_server_has_the_attribute(name: str) -> None:
    try:
        attrgetter(name)(uvicorn.Server(uvicorn.Config(management, log_config=None)))
    except AttributeError as error:
        pytest.fail(f"uvicorn's Server has no {name}: {error}")


def test_a_tick_takes_a_counter_and_says_whether_the_server_is_to_end() -> None:
    assert [*inspect.signature(uvicorn.Server.on_tick).parameters] == ["self", "counter"]
    server = uvicorn.Server(uvicorn.Config(management, log_config=None))
    assert asyncio.run(server.on_tick(0)) is False
    server.should_exit = True
    assert asyncio.run(server.on_tick(0)) is True


def test_the_middleware_takes_what_the_settings_trust() -> None:
    trusted: Any = uvicorn.Config(management, log_config=None).forwarded_allow_ips
    assert ProxyHeadersMiddleware(management, trusted)  # type: ignore[arg-type]  # the app has this project's types of ASGI


HEAD = "Host: localhost\r\nX-Stainless-OS: Linux\r\nX-Other: a\r\n"
#: Requests in pieces: usual ones, and those that uvicorn's own callbacks handle.
REQUESTS = [
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: 2\r\n\r\n{{}}"],
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: 2\r\n\r\n", "{", "}"],
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: 6\r\n\r\n", "{", "1234", "}"],
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n1\r\n}}\r\n0\r\n\r\n"],
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"],
    [f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"],
    [f"GET /v1/models HTTP/1.1\r\n{HEAD}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
    [f"GET /v1/models HTTP/1.0\r\n{HEAD}\r\n"],
    [f"GET /v1/models HTTP/1.0\r\n{HEAD}Connection: keep-alive\r\n\r\n"],
    [f"GET /a HTTP/1.0\r\nX: HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET /v1/models?a=b%20c HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET /v1/mod%65ls/%2F HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET //v1//models/ HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET http://localhost/v1/models HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET / HTTP/1.1\r\n{HEAD}\r\n"],
    ["GET /v1/mod", f"els HTTP/1.1\r\n{HEAD}\r\n"],
    [f"\r\nGET /v1/models HTTP/1.1\r\n{HEAD}\r\n"],
    [f"GET /one HTTP/1.1\r\n{HEAD}\r\nGET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
    [f"GET /one HTTP/1.1\r\n{HEAD}\r\nGET /two HTTP/1.1\r\n{HEAD}\r\n"],
    [f"OPTIONS * HTTP/1.1\r\n{HEAD}\r\n"],
    ["POST /v1/chat/completions HTTP/1.1\r\nHOST: a\r\nhost: b\r\nContent-LENGTH: 2\r\nEXPECT: 100-Continue\r\n\r\n{}"],
]


@in_one_test("pieces", REQUESTS)
async def test_the_callbacks_in_place_of_uvicorns_have_the_same_result(pieces: list[str]) -> None:
    found = []
    for kind in (Protocol, HttpToolsProtocol):
        config = http_server(_waiting).config
        config.load()
        protocol = kind(config, ServerState(), {})
        protocol.connection_made(Wire(lambda _: None))
        for piece in pieces:
            protocol.data_received(piece.encode())
        cycles = [protocol.cycle, *(cycle for cycle, _ in protocol.pipeline)]
        found.append([len(protocol.tasks), *map(_facts, cycles)])
        await asyncio.sleep(0)
        for task in list(protocol.tasks):
            task.cancel()
        await asyncio.gather(*protocol.tasks, return_exceptions=True)
    assert found[0] == found[1]


@in_one_test("line", [1, 3, 4, 5])
async def test_a_head_in_two_pieces_loses_its_offer_of_another_protocol_too(line: int) -> None:
    lines = ["POST /a HTTP/1.1", "Host: a", "Upgrade: h2c", "Connection: Upgrade", "Content-Length: 2", "", "{}"]
    config = http_server(_waiting).config
    config.load()
    protocol = Protocol(config, ServerState(), {})
    protocol.connection_made(Wire(lambda _: None))
    first = "\r\n".join(lines[:line]) + "\r\n"
    for piece in (first, "\r\n".join(lines).removeprefix(first)):
        protocol.data_received(piece.encode())
    assert bytes(protocol.cycle.body) == b"{}"
    await asyncio.sleep(0)
    for task in list(protocol.tasks):
        task.cancel()
    await asyncio.gather(*protocol.tasks, return_exceptions=True)


def _facts(cycle: RequestResponseCycle) -> tuple[Any, ...]:
    scope = {name: value for name, value in cycle.scope.items() if not name.startswith("xinference.")}
    return scope, cycle.keep_alive, cycle.more_body, bytes(cycle.body), cycle.message_event.is_set(), cycle.access_log


async def _waiting(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def test_a_cycle_takes_its_arguments_in_the_order_in_which_they_are_given() -> None:
    assert [*inspect.signature(RequestResponseCycle).parameters] == [
        *("scope", "transport", "flow", "logger", "access_logger", "access_log", "default_headers", "message_event"),
        *("expect_100_continue", "keep_alive", "on_response"),
    ]
