"""What a machine that joins believes: whoever answers at the endpoint may be somebody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.loopback_server import serve_connections
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.frames import read_frame, to_frame
from xinference.nodes import joining
from xinference.nodes.certificates import ClusterAuthority, NodeIdentity, fingerprint, public_bytes
from xinference.nodes.hello import Join, Joined, Welcome
from xinference.nodes.join_tokens import create_token
from xinference.nodes.joining import WorkerHome, invitation_of, join

SUPERVISOR = "n00000000000a"
GOOD = {"supervisor": SUPERVISOR, "port": 9999, "authority": ""}


@asynccontextmanager
async def _answering(content: bytes, status: str = "200 OK") -> AsyncIterator[str]:
    """An HTTP server with one answer; gives its URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
        writer.close()

    async with serve_connections(answer) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", "200 OK"),
        (b"\xff\xfe", "200 OK"),
        (b"[" * 60_000, "200 OK"),
        (b"[" * 60_000, "500 Error"),
        (b"5", "409 Conflict"),
        (b'{"problem": 5}', "409 Conflict"),
        (json.dumps(GOOD | {"port": 0}).encode(), "200 OK"),
        (json.dumps(GOOD | {"port": 65536}).encode(), "200 OK"),
        (json.dumps(GOOD | {"port": 10**30}).encode(), "200 OK"),
        (json.dumps(GOOD | {"port": None}).encode(), "200 OK"),
        (json.dumps(GOOD | {"supervisor": "../x"}).encode(), "200 OK"),
        (json.dumps(GOOD | {"supervisor": SUPERVISOR + "\n"}).encode(), "200 OK"),
        (json.dumps(GOOD | {"supervisor": "." * 300}).encode(), "200 OK"),
        (json.dumps(GOOD).encode() + b" " * 10_000_000, "200 OK"),
    ],
)
async def test_an_answer_that_is_no_invitation_is_that_of_another_server(content: bytes, status: str) -> None:
    async with _answering(content, status) as url:
        with pytest.raises(Problem, match="is not a supervisor") as caught:
            await invitation_of(url)
    assert caught.value.code == Code.NOT_OUR_SERVER


async def test_a_problem_with_a_status_that_is_none_is_shown() -> None:
    async with _answering(b'{"problem": {"cause": "No.", "status": 1e999}}', "409 Conflict") as url:
        with pytest.raises(Problem):
            await invitation_of(url)


async def test_a_server_that_answers_a_byte_at_a_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "HELLO_SECONDS", 0.3)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(OSError):
            for _ in range(1000):
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.02)

    async with serve_connections(drip) as port:
        with pytest.raises(Problem, match=r"has not answered within 0.3 s|No server answers") as caught:
            await asyncio.wait_for(invitation_of(f"http://127.0.0.1:{port}"), 5)
    assert caught.value.code == Code.SERVER_UNREACHABLE


class _Clusters:
    """The cluster that a machine has a token of, and one of somebody who intercepts the connection."""

    def __init__(self, folder: Path) -> None:
        self.now = datetime.now(UTC)
        self.real = ClusterAuthority.load_or_create(folder / "real", self.now)
        self.other = ClusterAuthority.load_or_create(folder / "other", self.now)
        self.folder = folder
        self.token = create_token(fingerprint(self.real.certificate), 0.0, 60.0, 1)[0].text
        self.home = WorkerHome(folder / "worker")
        self.received: list[Any] = []

    @asynccontextmanager
    async def door(self, signed_by: ClusterAuthority, authority: bytes, answer: Joined | Welcome) -> AsyncIterator[str]:
        """A supervisor with a certificate of an authority; gives the URL that invites to it."""
        identity = NodeIdentity(self.folder / "supervisor")
        request = identity.signing_request()
        identity.save(signed_by.issue(request, SUPERVISOR, self.now), public_bytes(signed_by.certificate))
        context = identity.server_context(admits_strangers=True)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.received.append(await read_frame(reader, msgspec.msgpack.Decoder(Join)))
            writer.write(to_frame(answer))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        invitation = {"supervisor": SUPERVISOR, "port": port, "authority": authority.decode()}
        async with server, _answering(json.dumps(invitation).encode()) as url:
            yield url


async def test_an_authority_that_is_appended_to_the_one_of_the_token_is_not_trusted(tmp_path: Path) -> None:
    clusters = _Clusters(tmp_path)
    both = public_bytes(clusters.real.certificate) + public_bytes(clusters.other.certificate)
    async with clusters.door(clusters.other, both, Joined("n00000000000b", b"")) as url:
        with pytest.raises(Problem, match="certificate verify failed") as caught:
            await join(url, clusters.token, "machine", clusters.home)
    assert caught.value.code == Code.SERVER_UNREACHABLE
    assert clusters.received == [], "the token was sent to somebody else"


@pytest.mark.parametrize(("minutes", "words"), [(10, "not valid yet"), (-60 * 24 * 40, "not valid any more")])
async def test_a_clock_that_is_outside_of_the_time_of_the_supervisors_certificate_is_named(
    tmp_path: Path, minutes: int, words: str
) -> None:
    clusters = _Clusters(tmp_path)
    clusters.now += timedelta(minutes=minutes)
    async with clusters.door(
        clusters.real, public_bytes(clusters.real.certificate), Joined("n00000000000b", b"")
    ) as url:
        with pytest.raises(Problem, match=rf"is {words} by the clock of this machine, which shows 2") as caught:
            await join(url, clusters.token, "machine", clusters.home)
    assert "Set the clocks" in str(caught.value.hint)


async def test_only_the_authority_of_the_token_is_stored(tmp_path: Path) -> None:
    clusters = _Clusters(tmp_path)
    both = public_bytes(clusters.real.certificate) + public_bytes(clusters.other.certificate)
    request = clusters.home.identity.signing_request()
    certificate = clusters.real.issue(request, "n00000000000b", clusters.now)
    async with clusters.door(clusters.real, both, Joined("n00000000000b", certificate)) as url:
        membership = await join(url, clusters.token, "machine", clusters.home)
    assert membership.node_id == "n00000000000b"
    assert clusters.home.identity.authority_path.read_bytes() == public_bytes(clusters.real.certificate)


@pytest.mark.parametrize("answer", ["welcome", "path", "damaged", "another key"])
async def test_an_answer_that_is_no_certificate_for_this_machine_is_an_error_and_is_not_stored(
    tmp_path: Path, answer: str
) -> None:
    clusters = _Clusters(tmp_path)
    foreign = NodeIdentity(tmp_path / "foreign").signing_request()
    answers: dict[str, Joined | Welcome] = {
        "welcome": Welcome(1, "0.1.0"),
        "path": Joined("../../n", b""),
        "damaged": Joined("n00000000000b", b"-----BEGIN"),
        "another key": Joined("n00000000000b", clusters.real.issue(foreign, "n00000000000b", clusters.now)),
    }
    async with clusters.door(clusters.real, public_bytes(clusters.real.certificate), answers[answer]) as url:
        with pytest.raises(Problem) as caught:
            await join(url, clusters.token, "machine", clusters.home)
    assert caught.value.code in (Code.SERVER_UNREACHABLE, Code.NODE_MESSAGE_REFUSED)
    assert clusters.home.load() is None and not clusters.home.identity.certificate_path.exists()
