"""A gateway reaches an engine of another node through that node's front door, over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from cryptography import x509

from tests.gateway.harness import CHAT, STREAM, chunked, router_to, served
from tests.support.loopback_server import serve_connections
from xinference.gateway.door_load import DoorLoad
from xinference.gateway.front_door import FrontDoor, front_door_server
from xinference.gateway.http.engine_pool import EngineDiedError, EnginePool, EngineUnreachableError
from xinference.gateway.http.server import Server
from xinference.hosts import node_name
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, public_bytes
from xinference.routing.table import Target
from xinference.tls_listener import HandshakeLimits

GATEWAY, WORKER = "n00000000000a", "n00000000000b"
HEADERS = ((b"content-type", b"application/json"),)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Worker:
    """A node with a front door; `targets` are its replicas."""

    port: int
    targets: dict[str, Target]
    revoked: set[tuple[str, int]]
    client: NodeIdentity
    load: DoorLoad
    heads: list[bytes] = field(default_factory=list)
    server: Server | None = None

    def target(self, replica_id: str = "r1", name: str = node_name(WORKER)) -> Target:
        """How another node sees a replica of this one."""
        return Target(replica_id, f"https://127.0.0.1:{self.port}/r/{replica_id}", "", name)

    def pool(self) -> EnginePool:
        """The pool of a gateway on the other node."""
        return EnginePool(self.client.client_context)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> tuple[NodeIdentity, NodeIdentity]:
    folder, now = tmp_path_factory.mktemp("cluster"), datetime.now(UTC)
    authority = ClusterAuthority.load_or_create(folder / "ca", now)
    made = []
    for node_id in (GATEWAY, WORKER):
        identity = NodeIdentity(folder / node_id)
        identity.save(authority.issue(identity.signing_request(), node_id, now), public_bytes(authority.certificate))
        made.append(identity)
    return made[0], made[1]


@contextlib.asynccontextmanager
async def worker_with(identities: tuple[NodeIdentity, NodeIdentity], handle: Handler) -> AsyncIterator[Worker]:
    """A worker whose only engine, replica ``r1``, does as the test says with each connection."""
    client, server_identity = identities
    listener = socket.create_server(("127.0.0.1", 0))
    pool = EnginePool()
    worker = Worker(listener.getsockname()[1], {}, set(), client, DoorLoad(pool))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            worker.heads.append(await _request(reader))
            await handle(reader, writer)
        writer.close()

    async with serve_connections(connection) as engine_port:
        worker.targets["r1"] = Target("r1", f"http://127.0.0.1:{engine_port}", "secret of the launch")
        door = FrontDoor(lambda: worker.targets, pool, 1024 * 1024, load=worker.load)
        server = front_door_server(door, server_identity.server_context(), "127.0.0.1", 0, worker.revoked)
        worker.server = server
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield worker
        finally:
            server.hurry()
            server.stop()
            await running
            await pool.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return head


async def answer_whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(WHOLE)
    await writer.drain()


async def test_a_gateway_gets_the_answer_of_an_engine_on_another_node(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async with (
        worker_with(identities, answer_whole) as worker,
        served(router_to(worker.target()), node_tls=worker.client.client_context) as gateway,
    ):
        status, answer, _ = await gateway.post("/v1/chat/completions", CHAT)
        assert (status, answer) == (200, {})


async def test_the_key_of_the_engine_stays_on_its_node(identities: tuple[NodeIdentity, NodeIdentity]) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        answer = await pool.post(worker.target(), "/v1/chat/completions", b"a=1", HEADERS, b"{}")
        answer.close()
        await pool.close()
        assert worker.heads[0].startswith(b"POST /v1/chat/completions?a=1 HTTP/1.1")
        assert b"Bearer secret of the launch" in worker.heads[0]
        assert worker.target().api_key == ""


async def test_a_stream_arrives_in_pieces_and_one_connection_serves_the_next_request(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    more = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"data: 1\n\n", end=False))
        await writer.drain()
        await more.wait()
        writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
        await writer.drain()

    async with worker_with(identities, stream) as worker:
        pool = worker.pool()
        answer = await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        assert (answer.first, answer.is_stream) == (b"data: 1\n\n", True)
        more.set()
        assert await answer.read() == b"data: 2\n\n"
        assert await answer.read() == b""
        used = answer.connection
        answer.close()
        again = await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        assert again.connection is used, "the TLS connection is kept, although the engine has closed its own"
        again.close()
        await pool.close()


async def test_a_replica_that_the_node_does_not_have_was_not_reached(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        with pytest.raises(EngineUnreachableError):
            await pool.post(worker.target("r2"), "/v1/chat/completions", b"", HEADERS, b"{}")
        await pool.close()
        assert worker.heads == []


async def test_an_engine_that_refuses_connections_was_not_reached(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async with worker_with(identities, answer_whole) as worker:
        worker.targets["r1"] = _nobody()
        pool = worker.pool()
        with pytest.raises(EngineUnreachableError):
            await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        await pool.close()


async def test_an_engine_that_dies_before_its_answer_is_told_as_on_the_own_node(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with worker_with(identities, die) as worker:
        pool = worker.pool()
        with pytest.raises(EngineDiedError):
            await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        await pool.close()


@pytest.mark.parametrize("begins", [False, True])
async def test_an_answer_that_the_end_of_its_worker_cuts_off_is_that_of_an_engine_that_died(
    identities: tuple[NodeIdentity, NodeIdentity], begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    has_request, client_left = asyncio.Event(), asyncio.Event()

    async def never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if begins:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        has_request.set()
        await client_left.wait()

    async with worker_with(identities, never_ends) as worker:
        pool = worker.pool()
        asking = asyncio.create_task(_whole(pool, worker.target()))
        await has_request.wait()
        assert worker.server is not None
        worker.server.stop()
        worker.server.hurry()
        with pytest.raises(EngineDiedError):
            await asyncio.wait_for(asking, 10)
        client_left.set()
        await pool.close()
    assert "Exception in ASGI application" not in caplog.text and "this worker ends" in caplog.text


async def _whole(pool: EnginePool, target: Target) -> bytes:
    """The whole answer of an engine."""
    answer = await pool.post(target, "/v1/chat/completions", b"", HEADERS, b"{}")
    body, chunk = b"", answer.first
    while chunk:
        body, chunk = body + chunk, await answer.read()
    return body


async def test_a_node_says_whether_an_engine_still_listens(identities: tuple[NodeIdentity, NodeIdentity]) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        assert await pool.node_reaches(worker.target())
        worker.targets["r1"] = _nobody()
        assert not await pool.node_reaches(worker.target())
        assert not await pool.node_reaches(worker.target("r2"))
        await pool.close()


async def test_the_engines_of_a_node_that_says_nothing_may_run_on(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool, target = worker.pool(), worker.target()
    assert await pool.node_reaches(target), "the worker has ended, its keepers have not"
    await pool.close()


async def test_a_request_that_has_crashed_an_engine_of_another_node_is_not_sent_again(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker.targets["r1"] = _nobody()
        writer.transport.abort()

    async with (
        worker_with(identities, crash) as worker,
        served(router_to(worker.target()), node_tls=worker.client.client_context) as gateway,
    ):
        codes = [(await gateway.post("/v1/chat/completions", CHAT))[1]["error"]["code"] for _ in range(2)]
        assert codes == ["engine_died", "request_crashes_engine"]
        assert len(worker.heads) == 1


def _nobody() -> Target:
    """A replica of which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return Target("r1", f"http://127.0.0.1:{free.getsockname()[1]}", "k")


async def test_an_engine_that_dies_in_a_stream_is_an_error_event_for_the_client(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b'data: {"choices":[]}\n\n', end=False))
        await writer.drain()
        writer.transport.close()

    async with (
        worker_with(identities, die) as worker,
        served(router_to(worker.target()), node_tls=worker.client.client_context) as gateway,
    ):
        _, text = await gateway.stream("/v1/chat/completions", STREAM)
        assert b'"choices":[]' in text and b"engine_died" in text and b"[DONE]" not in text


async def test_a_client_that_leaves_ends_the_request_on_the_other_node(
    identities: tuple[NodeIdentity, NodeIdentity],
) -> None:
    left = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"data: 1\n\n", end=False))
        await reader.read()
        left.set()

    async with worker_with(identities, endless) as worker:
        pool = worker.pool()
        answer = await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        answer.close()
        await asyncio.wait_for(left.wait(), 10)
        await pool.close()


async def test_a_node_of_another_name_gets_no_request(identities: tuple[NodeIdentity, NodeIdentity]) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        with pytest.raises(EngineUnreachableError):
            target = worker.target(name=node_name("n00000000000c"))
            await pool.post(target, "/v1/chat/completions", b"", HEADERS, b"{}")
        await pool.close()
        assert worker.heads == []


async def test_a_revoked_node_is_refused(identities: tuple[NodeIdentity, NodeIdentity]) -> None:
    async with worker_with(identities, answer_whole) as worker:
        serial = _serial(worker.client)
        worker.revoked.add((GATEWAY, serial))
        pool = worker.pool()
        with pytest.raises((EngineUnreachableError, EngineDiedError)):
            await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"{}")
        await pool.close()
        assert worker.heads == []


@pytest.mark.parametrize("with_tls", [False, True])
async def test_who_has_no_certificate_of_the_cluster_gets_nothing(
    identities: tuple[NodeIdentity, NodeIdentity], with_tls: bool
) -> None:
    async with worker_with(identities, answer_whole) as worker:
        context = None
        if with_tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        got = b""
        with contextlib.suppress(OSError, ssl.SSLError):
            reader, writer = await asyncio.open_connection("127.0.0.1", worker.port, ssl=context)
            writer.write(b"POST /r/r1/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            got = await reader.read()
            writer.transport.abort()
        assert b"200" not in got and worker.heads == []


@pytest.mark.parametrize("begin", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_connection_that_does_not_set_up_tls_is_closed_soon(
    identities: tuple[NodeIdentity, NodeIdentity], begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Server, "handshake_limits", HandshakeLimits(seconds=0.2))
    async with worker_with(identities, answer_whole) as worker:
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        writer.write(begin)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("path", ["/", "/r/", "/v1/models", "/r/../r1/v1/chat/completions"])
async def test_a_path_of_no_replica_reaches_no_engine(identities: tuple[NodeIdentity, NodeIdentity], path: str) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        target = Target("r1", f"https://127.0.0.1:{worker.port}", "", node_name(WORKER))
        with pytest.raises(EngineUnreachableError):
            await pool.post(target, path, b"", HEADERS, b"{}")
        await pool.close()
        assert worker.heads == []


async def test_a_body_over_the_limit_is_refused_and_not_read(identities: tuple[NodeIdentity, NodeIdentity]) -> None:
    async with worker_with(identities, answer_whole) as worker:
        pool = worker.pool()
        answer = await pool.post(worker.target(), "/v1/chat/completions", b"", HEADERS, b"x" * (1024 * 1024 + 1))
        assert answer.status == 413
        answer.close()
        await pool.close()
        assert worker.heads == []


def _serial(identity: NodeIdentity) -> int:
    return x509.load_pem_x509_certificate(identity.certificate_path.read_bytes()).serial_number
