"""Connections whose TLS is not set up: how many a port has, and whom they keep out."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import uvloop

from tests.support.polling import until_async
from xinference.cluster.rows import new_node_id
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, now, public_bytes
from xinference.tls_listener import HandshakeLimits, Handshakes, TlsListener, bind, within_descriptors

HELLO_BEGIN = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
"""The first bytes of a record with a ClientHello."""


class Echo(asyncio.Protocol):
    """Sends back what arrives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("authority")
    authority = ClusterAuthority.load_or_create(folder / "authority", now())
    identity = NodeIdentity(folder / "node")
    certificate = authority.issue(identity.signing_request(), new_node_id(), now())
    identity.save(certificate, public_bytes(authority.certificate))
    return identity.server_context(admits_strangers=True)


@asynccontextmanager
async def a_port(context: ssl.SSLContext, limits: HandshakeLimits) -> AsyncIterator[tuple[TlsListener, int]]:
    listener = bind("127.0.0.1", 0)
    port = TlsListener(listener, Echo, context, limits)
    port.open()
    number = listener.getsockname()[1]
    try:
        yield port, number
    finally:
        port.close()


@contextlib.contextmanager
def strangers(port: int, count: int, begin: bytes, address: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """Connections that send `begin`, and no more."""
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(count):
            each = opened.enter_context(socket.create_connection(("127.0.0.1", port), 10, (address, 0)))
            each.sendall(begin)
            made.append(each)
        yield made


async def is_answered(port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"hello")
        answer = await reader.readexactly(5)
        writer.close()
    return answer == b"hello"


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("begin", [b"", HELLO_BEGIN])
def test_500_connections_without_tls_keep_nobody_out_and_give_their_descriptors_back(
    context: ssl.SSLContext, begin: bytes, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_meet_500_strangers(context, begin))


async def _meet_500_strangers(context: ssl.SSLContext, begin: bytes) -> None:
    limits = HandshakeLimits(total=64, per_address=8, seconds=2.0, busy_seconds=0.2)
    async with a_port(context, limits) as (port, number):
        assert await is_answered(number)  # uvloop opens some descriptors with its first connection
        await until_async("its connection is closed", lambda: not port.handshakes)
        before = descriptors()
        with strangers(number, 500, begin):
            assert await is_answered(number)
            assert port.handshakes <= limits.total
            await until_async("only the share of one address is left", lambda: port.handshakes <= limits.per_address)
            await until_async("all are closed", lambda: not port.handshakes and descriptors() <= before + 500)
        await until_async("the descriptors are back", lambda: descriptors() <= before)


async def test_a_connection_above_the_total_ends_the_longest_handshake_of_the_address_that_has_the_most(
    context: ssl.SSLContext,
) -> None:
    async with a_port(context, HandshakeLimits(total=3)) as (port, number):
        with strangers(number, 1, b"", "127.0.0.2") as (other,), strangers(number, 2, b"") as (longest, second):
            await until_async("three are accepted", lambda: port.handshakes == 3)
            assert await is_answered(number)
            await until_async("one has ended", lambda: port.handshakes == 2)
            assert await asyncio.to_thread(longest.recv, 1) == b""
            for each in (other, second):
                each.setblocking(False)
                with pytest.raises(BlockingIOError):
                    each.recv(1)


async def test_the_end_of_a_port_ends_its_handshakes(context: ssl.SSLContext) -> None:
    async with a_port(context, HandshakeLimits()) as (port, number):
        with strangers(number, 3, b"") as made:
            await until_async("they are accepted", lambda: port.handshakes == 3)
            port.close()
            assert [await asyncio.to_thread(each.recv, 1) for each in made] == [b""] * 3


async def test_a_process_without_descriptors_ends_a_handshake_and_accepts_again(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_port(context, HandshakeLimits()) as (port, number):
        with strangers(number, 1, b"") as (stranger,):
            await until_async("it is accepted", lambda: port.handshakes == 1)
            port._pause(OSError(errno.EMFILE, "Too many open files"))
            assert await is_answered(number)
            assert await asyncio.to_thread(stranger.recv, 1) == b""


def test_a_process_with_few_descriptors_has_few_handshakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert within_descriptors(HandshakeLimits()) == 128


def test_an_address_above_its_share_gets_less_time() -> None:
    limits = HandshakeLimits(per_address=2, seconds=10.0, busy_seconds=1.0)
    assert [limits.seconds_for(others) for others in (0, 1, 2, 3)] == [10.0, 10.0, 1.0, 1.0]


def test_a_handshake_that_was_taken_is_not_counted_twice() -> None:
    handshakes: Handshakes[str] = Handshakes(2)
    for name, address in (("a", "x"), ("b", "y")):
        assert handshakes.take_excess() is None
        handshakes.add(name, address)
    assert handshakes.take_excess() == "a"
    handshakes.remove("a", "x")
    assert len(handshakes) == 1 and handshakes.at("x") == 0 and handshakes.at("y") == 1
