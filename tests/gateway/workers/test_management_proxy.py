"""What a gateway process passes on of a request to the management API, and of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.harness import call
from xinference.gateway.auth.peer import OWNER_HEADER, PEER_UID, is_from_own_user, is_marked_by_worker
from xinference.gateway.http.asgi import Receive, Scope, Send
from xinference.gateway.workers.management_proxy import ManagementProxy
from xinference.keys.visibility import FROM_OWNER


@contextlib.asynccontextmanager
async def server_that_answers(answer: bytes, path: Path) -> AsyncIterator[list[bytes]]:
    """A server on a Unix socket, and the heads that it receives."""
    heads: list[bytes] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(connection, path):
        yield heads


def names(head: bytes) -> set[str]:
    return {line.partition(":")[0].lower() for line in head.decode().split("\r\n")[1:-2]}


@pytest.mark.parametrize("connection", ["close, X-Secret", "x-secret,keep-alive", "X-SECRET , x-unknown"])
async def test_headers_that_connection_names_end_at_the_gateway(connection: str, tmp_path: Path) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: {connection}\r\nX-Secret: 1\r\nX-Kept: 2\r\n"
        "Keep-Alive: timeout=5\r\n\r\n{}"
    ).encode()
    async with server_that_answers(answer, tmp_path / "s") as heads:
        proxy = ManagementProxy(str(tmp_path / "s"), 1000)
        sent = {"connection": connection, "x-secret": "1", "x-kept": "2", "te": "trailers", "upgrade": "h2c"}
        found = await call(proxy, "/v1/keys", method="GET", headers=sent)
        await proxy.close()
    assert {"x-kept", "host"} <= names(heads[0])
    assert not names(heads[0]) & {"x-secret", "te", "upgrade", "keep-alive"}
    assert (found.status, found.body) == (200, b"{}")
    assert found.headers == {b"content-length": b"2", b"x-kept": b"2"}


async def test_each_connection_header_counts(tmp_path: Path) -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n"
        b"\r\n{}"
    )
    async with server_that_answers(answer, tmp_path / "s"):
        proxy = ManagementProxy(str(tmp_path / "s"), 1000)
        found = await call(proxy, "/v1/keys", method="GET")
        await proxy.close()
    assert found.headers == {b"content-length": b"2", b"x-c": b"3"}


async def test_a_client_that_names_its_key_in_connection_comes_without_it(tmp_path: Path) -> None:
    async with server_that_answers(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", tmp_path / "s") as heads:
        proxy = ManagementProxy(str(tmp_path / "s"), 1000)
        sent = {"connection": "authorization", "authorization": "Bearer secret"}
        assert (await call(proxy, "/v1/keys", method="GET", headers=sent)).status == 401
        await proxy.close()
    assert "authorization" not in names(heads[0])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"",
    ],
    ids=["no end", "no HTTP", "two lengths", "nothing"],
)
async def test_a_bad_answer_of_the_server_is_an_error(answer: bytes, tmp_path: Path) -> None:
    async with server_that_answers(answer, tmp_path / "s"):
        proxy = ManagementProxy(str(tmp_path / "s"), 1000)
        found = await call(proxy, "/v1/keys", method="GET")
        await proxy.close()
    assert (found.status, found.json["problem"]["code"]) == (503, "server_unreachable")


@pytest.mark.parametrize("found", [True, False])
async def test_the_server_is_told_who_sent_a_request_by_us_only(found: bool, tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    async with server_that_answers(answer, tmp_path / "s") as heads:
        proxy = ManagementProxy(str(tmp_path / "s"), 1000)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope[FROM_OWNER] = found
            await proxy(scope, receive, send)

        for given in ({}, {"x-xinference-owner": "1"}, {"connection": "x-xinference-owner"}):
            await call(app, "/v1/keys", method="GET", headers=given)
        await proxy.close()
    assert [head.lower().count(b"x-xinference-owner: 1") for head in heads] == [int(found)] * 3


def test_the_mark_counts_on_a_connection_of_our_own_user_only() -> None:
    for headers, uid, counts in (
        ([OWNER_HEADER], os.geteuid(), True),
        ([], os.geteuid(), False),
        ([OWNER_HEADER], os.geteuid() + 1, False),
        ([OWNER_HEADER], None, False),
    ):
        assert is_marked_by_worker({"headers": headers, PEER_UID: lambda uid=uid: uid}) is counts
    assert not is_marked_by_worker({"headers": [OWNER_HEADER]})
    assert not is_from_own_user({"headers": [OWNER_HEADER]})
