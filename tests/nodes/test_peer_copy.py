"""A file is copied from other nodes over real TLS: from which of them, from which byte, and what they refuse."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.weight_nodes import WeightMachine, weight_machine
from xinference.errors import Problem
from xinference.hosts import node_name
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.offer import Offer
from xinference.hubs.transfer.parallel import Stopped
from xinference.nodes import peer_copy
from xinference.nodes.node import Peer, PeerWeights
from xinference.nodes.peer_copy import PeerCopy

BYTES = random.Random(3).randbytes(2_500_000)
NAME = "a folder/model-Ünï.gguf"
FILE = ListedFile(NAME, len(BYTES), hashlib.sha256(BYTES).hexdigest())


@dataclass
class Copier:
    """A node that copies the file from these peers, and counts its bytes."""

    machine: WeightMachine
    digest: str
    counts: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def target(self) -> Path:
        return self.machine.home / "arriving"

    async def copy(self, *peers: Peer, file: ListedFile = FILE, digest: str | None = None) -> None:
        weights = PeerWeights(digest or self.digest, Listing("main", (file,)), peers)
        copy = PeerCopy(weights, self.machine.identity.client_context)
        await asyncio.to_thread(copy, file, self.target, self.counts.append, self.stop)


def offered(machine: WeightMachine, name: str = NAME, data: bytes = BYTES) -> str:
    """Offer a file of a machine; returns the digest."""
    path = machine.home / "hub" / "file"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return machine.offers.add(Offer(Listing("main", (FILE,)), {name: path}))


def peer(machine: WeightMachine, port: int | None = None) -> Peer:
    return Peer(machine.node_id, "box", "127.0.0.1", machine.port if port is None else port)


@contextlib.contextmanager
def broken_peer(machine: WeightMachine, sent: int) -> Iterator[tuple[int, list[bytes]]]:
    """A front door with the machine's certificate that closes the connection after so many bytes of the body."""
    heads: list[bytes] = []
    context = machine.identity.server_context()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                    heads.append(secured.recv(65536))
                    secured.sendall(b"HTTP/1.1 206 x\r\nContent-Length: %d\r\n\r\n" % len(BYTES) + BYTES[:sent])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], heads
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


async def test_a_file_is_copied_and_every_byte_is_counted_once(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        copier.target.parent.mkdir(parents=True, exist_ok=True)
        await copier.copy(peer(source))
        assert copier.target.read_bytes() == BYTES
        assert sum(copier.counts) == len(BYTES)


async def test_a_source_that_dies_in_mid_copy_is_followed_by_the_next_one_from_the_same_byte(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        cut = 1_200_001
        with broken_peer(source, cut) as (port, heads):
            dying = [Peer(source.node_id, "dying", "127.0.0.1", port)] * 2
            with pytest.raises(Problem) as raised:
                await copier.copy(*dying, file=FILE)
            assert raised.value.code == "peer_copy_failed" and f"after {cut} of {len(BYTES)} bytes" in str(raised.value)
            assert copier.target.read_bytes()[:cut] == BYTES[:cut]
            assert [head.partition(b"Range: ")[2].partition(b"\r\n")[0] for head in heads[:2]] == [
                b"bytes=0-",
                b"bytes=%d-" % cut,
            ]
            copier.target.unlink()
            copier.counts.clear()
            heads.clear()
            for peers in ((dying[0], peer(source)), (peer(source), dying[0])):  # one of them begins with the dying one
                await copier.copy(*peers)
                assert copier.target.read_bytes() == BYTES and sum(copier.counts) == len(BYTES)
                copier.target.unlink()
                copier.counts.clear()
            assert len(heads) == 1


@contextlib.contextmanager
def slow_peer(machine: WeightMachine, first: bytes) -> Iterator[int]:
    """A front door with the machine's certificate that sends these bytes, and then a byte now and then."""
    context = machine.identity.server_context()
    ended = threading.Event()

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as secured:
                secured.recv(65536)
                secured.sendall(first)
                while not ended.wait(0.02):
                    secured.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(30)


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 206 x\r\nContent-Length: %d\r\n\r\n" % len(BYTES),
        b"HTTP/1.1 206 x\r\nContent-Length: %d\r\nX-Slow: " % len(BYTES),
    ],
)
async def test_a_peer_that_sends_a_byte_now_and_then_is_followed_by_the_next_one(
    tmp_path: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TURN_SECONDS", "PIECE_SECONDS"):
        monkeypatch.setattr(peer_copy, name, 0.3)
    monkeypatch.setattr(peer_copy, "CHECK_SECONDS", 0.05)
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        copier.target.parent.mkdir(parents=True, exist_ok=True)
        with slow_peer(source, first) as port:
            slow = Peer(source.node_id, "slow", "127.0.0.1", port)
            async with asyncio.timeout(20):
                with pytest.raises(Problem, match="slow: it is too slow") as raised:
                    await copier.copy(slow)
        assert raised.value.code == "peer_copy_failed"


async def test_more_copies_than_a_node_sends_at_once_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinference.gateway.weight_files.MAX_SENDS", 1)
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        digest, large = offered(source), b"x" * (12 << 20)
        path = source.home / "hub" / "large"
        path.write_bytes(large)
        other = source.offers.add(Offer(Listing("other", (FILE,)), {NAME: path}))
        reader, writer = await begun(source, node, f"GET /w/{other}/{quote(NAME)} HTTP/1.1")
        await reader.readuntil(b"\r\n\r\n")  # it has its turn, and nobody reads its body yet
        copier = Copier(node, digest)
        copying = asyncio.create_task(copier.copy(peer(source)))
        assert await reader.read() == large
        writer.close()
        await copying
        assert copier.target.read_bytes() == BYTES


async def test_bytes_of_an_earlier_run_that_are_damaged_are_copied_again(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        copier.target.write_bytes(b"x" * 1000)
        await copier.copy(peer(source))
        assert copier.target.read_bytes() == BYTES
        assert sum(copier.counts) == len(BYTES)


async def test_a_peer_with_other_bytes_is_refused_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source, data=BYTES[::-1]))
        with pytest.raises(Problem) as raised:
            await copier.copy(peer(source))
        assert raised.value.code == "peer_copy_failed" and "has the hash" in raised.value.cause
        assert not copier.target.exists() and sum(copier.counts) == 0


async def test_a_list_without_a_hash_is_refused(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        with pytest.raises(Problem):
            await copier.copy(peer(source), file=ListedFile(NAME, len(BYTES)))


async def test_another_node_at_the_address_of_a_peer_is_refused(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        with pytest.raises(Problem) as raised:
            await copier.copy(Peer("n00000000000f", "other", "127.0.0.1", source.port))
        assert "certificate" in raised.value.cause


async def test_a_copy_that_is_stopped_ends_and_keeps_what_has_arrived(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        copier.stop.set()
        with pytest.raises(Stopped):
            await copier.copy(peer(source))


async def test_a_disk_that_cannot_be_written_is_not_blamed_on_the_peer(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        copier = Copier(node, offered(source))
        copier.target.mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            await copier.copy(peer(source))


HOSTILE = (
    "/w/{digest}/../../../../../../etc/passwd",
    "/w/{digest}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/w/{digest}//etc/passwd",
    "/w/{digest}/file",
    "/w/{digest}/",
    "/w/{digest}",
    "/w/",
    "/w/../../etc/passwd",
    "/w/" + "0" * 64 + "/a%20folder/model-%C3%9Cn%C3%AF.gguf",
)


@pytest.mark.parametrize("path", HOSTILE)
async def test_nothing_but_an_offered_file_is_sent(tmp_path: Path, path: str) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        head, body = await ask(source, node, f"GET {path.format(digest=offered(source))} HTTP/1.1")
        assert head.startswith(b"HTTP/1.1 404 ") and body == b"{}"


async def test_a_file_that_became_a_link_is_not_sent(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        digest = offered(source, "file")
        path = source.home / "hub" / "file"
        secret = tmp_path / "secret"
        secret.write_text("secret")
        path.unlink()
        path.symlink_to(secret)
        head, body = await ask(source, node, f"GET /w/{digest}/file HTTP/1.1")
        assert head.startswith(b"HTTP/1.1 404 ") and b"secret" not in body


async def test_a_range_behind_the_end_is_refused(tmp_path: Path) -> None:
    async with weight_machine(tmp_path, 1) as source, weight_machine(tmp_path, 2) as node:
        line = f"GET /w/{offered(source, 'file')}/file HTTP/1.1\r\nRange: "
        for wanted in (f"bytes={len(BYTES)}-", "bytes=-5", "bytes=1-2", "items=0-"):
            head, _ = await ask(source, node, line + wanted)
            assert head.startswith(b"HTTP/1.1 416 "), wanted


async def begun(
    source: WeightMachine, node: WeightMachine, request: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request with the certificate of `node`."""
    context: ssl.SSLContext = node.identity.client_context()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", source.port, ssl=context, server_hostname=node_name(source.node_id)
    )
    writer.write(f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return reader, writer


async def ask(source: WeightMachine, node: WeightMachine, request: str) -> tuple[bytes, bytes]:
    """The head and the body of the answer to a request with the certificate of `node`."""
    reader, writer = await begun(source, node, request)
    head = await reader.readuntil(b"\r\n\r\n")
    body = await reader.read()
    writer.close()
    return head, body
