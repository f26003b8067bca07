"""Reaches other machines: resolves names in threads of their own, and connects to an exact address."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import psutil

from xinference.work_threads import DaemonExecutor

#: Number of names that are resolved at the same time. A thread is occupied until the system gives up.
MAX_LOOKUPS = 8

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class Network:
    """The two ways in which the fetcher reaches the network; tests replace them."""

    addresses: Callable[[str], Awaitable[list[str]]]
    """Returns the addresses of a host without those of this machine; raises OSError if there are none."""
    connect: Callable[[IPv4Address | IPv6Address, int, str], Awaitable[Streams]]
    """Opens a TLS connection to an address and a port; the certificate must be valid for the host, the third argument.

    Raises OSError, of which `ssl.SSLError` is one.
    """


def real_network() -> Network:
    """The network of this machine, with the certificate authorities of the system."""
    lookups = DaemonExecutor(MAX_LOOKUPS, "name of a host")
    context = ssl.create_default_context()

    async def addresses(host: str) -> list[str]:
        return await asyncio.wrap_future(lookups.submit(_addresses, host))

    async def connect(address: IPv4Address | IPv6Address, port: int, host: str) -> Streams:
        # `address` is numeric, so no name is resolved again.
        return await asyncio.open_connection(str(address), port, ssl=context, server_hostname=host)

    return Network(addresses, connect)


def _addresses(host: str) -> list[str]:
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    own = {address.address for addresses in psutil.net_if_addrs().values() for address in addresses}
    return [address for address in dict.fromkeys(found) if address not in own]
