"""Host names and addresses of this machine. One definition for the server, the gateway and the client."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The IP address of `host`, without a DNS request; None for a name other than localhost.

    ``localhost`` and the names below it are 127.0.0.1 (RFC 6761). An IPv4 address in an IPv6 one is returned as IPv4.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def server_url(endpoint: str) -> str:
    """The URL of the server at `endpoint`, which may be the URL for OpenAI's clients, with ``/v1``.

    >>> server_url("http://127.0.0.1:9997/v1/")
    'http://127.0.0.1:9997'
    """
    return endpoint.rstrip("/").removesuffix("/v1").rstrip("/")


def host_in_url(host: str) -> str:
    """`host` as a URL has it: an IPv6 address is in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    address = address_of(host)
    return address is not None and address.is_loopback


def is_this_machine(host: str) -> bool:
    """Whether a connection to `host` stays on this machine: loopback, or the unspecified address."""
    address = address_of(host)
    return address is not None and (address.is_loopback or address.is_unspecified)
