"""An HTTPS server on loopback that stands for the machines of the internet, and a network whose names lead to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from xinference.https.network import Network, Streams

TLS = Path(__file__).parents[2] / "assets" / "tls"
#: A name for which the certificate is valid, and a public address that is not connected to.
HOST, PUBLIC = "images.test", "93.184.216.34"
PNG = b"\x89PNG\r\n\x1a\n and pixels"

Handle = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """One request that has reached the server."""

    target: str
    headers: dict[str, str]


@dataclass
class Internet:
    """The names, the connections and the requests of a test."""

    network: Network
    names: dict[str, list[str]]
    connections: list[tuple[str, int, str]] = field(default_factory=list)
    """Address, port and name of each connection."""
    requests: list[Asked] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)


def http(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer with a length."""
    return head(f"Content-Length: {len(content)}", *headers, status=status) + content


def head(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "\r\n")).encode()


def redirect(location: str) -> bytes:
    return http(b"not an image", f"Location: {location}", status="302 Found")


@contextlib.asynccontextmanager
async def internet(
    answers: Mapping[str, bytes | Handle], names: Mapping[str, list[str]] | None = None
) -> AsyncIterator[Internet]:
    """Serve `answers` by target while the block runs.

    Args:
        names: host -> addresses; a host that is not here has none.
    """

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            asked = Asked(lines[0].split(" ")[1], headers)
            served.requests.append(asked)
            answer = answers[asked.target]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(asked, writer)
        writer.close()

    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")
    server = await asyncio.start_server(connection, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))

    async def addresses(host: str) -> list[str]:
        served.lookups.append(host)
        if host not in served.names:
            raise OSError("no such name")
        return served.names[host]

    async def connect(address: IPv4Address | IPv6Address, asked_port: int, host: str) -> Streams:
        served.connections.append((str(address), asked_port, host))
        return await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=host)

    served = Internet(Network(addresses, connect), dict(names or {HOST: [PUBLIC]}))
    try:
        yield served
    finally:
        server.close()
