"""The options of sockets with which a machine that has gone is noticed."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvloop

from tests.support.loopback_server import serve_connections
from xinference.config import Settings
from xinference.gateway.http import engine_pool
from xinference.listener import listen
from xinference.tcp_keepalive import CLIENT, ENGINE

LINUX = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has other options")


def options(connection: Any) -> tuple[int, ...]:
    tcp = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    alive = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return (alive, *(connection.getsockopt(socket.IPPROTO_TCP, option) for option in tcp))


@LINUX
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_to_an_engine_breaks_a_minute_after_its_machine_has_gone(run: Any) -> None:
    async def connect() -> tuple[int, ...]:
        async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with serve_connections(nothing) as port:
            connection = await engine_pool._connect(engine_pool.Address("127.0.0.1", port, ""), None)
            assert connection._transport is not None
            try:
                return options(connection._transport.get_extra_info("socket"))
            finally:
                connection.abort()

    assert run(connect()) == (1, 15, 15, 3, 60_000)
    assert ENGINE.idle + ENGINE.interval * ENGINE.probes == ENGINE.unacknowledged


@LINUX
def test_a_clients_connection_breaks_two_minutes_after_its_machine_has_gone() -> None:
    with listen(Settings(port=0), port_is_given=True) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert options(accepted) == (1, CLIENT.idle, CLIENT.interval, CLIENT.probes, 0)
