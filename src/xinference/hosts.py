"""Host names and addresses of this machine. One definition for the server, the gateway and the client."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

HTTPS_PORT = 443
LOCAL_NODE = "local"
"""The id of the server's own machine among the machines on which models run."""
#: The last labels of the name of each node of a cluster; no public name ends so (RFC 2606).
NODE_DOMAIN = "node.xinference.invalid"
_ASCII_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?")
_MAX_HOST = 253
#: The server's own part of a URL: the paths of the API, the page and the documentation.
_OWN_PATH = re.compile(r"(?<![:/])/+(?:v1(?:[/?#].*)?|(?:ui|docs)/*(?:[?#].*)?)$")


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


def node_name(node_id: str) -> str:
    """The name in a node's certificate, which clients of the node check."""
    return f"{node_id}.{NODE_DOMAIN}"


def server_url(endpoint: str) -> str:
    """The URL of the server at `endpoint`: a host with or without a port, or a URL of this server.

    The URL may be the one for OpenAI's clients, with ``/v1`` or a path below it, or that of the page. A proxy's path
    before it remains.

    >>> server_url("http://127.0.0.1:9997/v1/"), server_url("http://gpu/llm/v1/chat/completions")
    ('http://127.0.0.1:9997', 'http://gpu/llm')
    >>> server_url("127.0.0.1:9997"), server_url("gpu/v1"), server_url("http://gpu/ui/#/models")
    ('http://127.0.0.1:9997', 'http://gpu', 'http://gpu')
    """
    endpoint = endpoint.strip()
    if "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    return _OWN_PATH.sub("", endpoint).rstrip("/")


def is_server_url(url: str) -> bool:
    """Whether a URL names a server: a scheme of HTTP, a host, and a port that exists or none.

    >>> [is_server_url(url) for url in ("http://gpu:9997", "ftp://gpu", "http://gpu:99970", "http://")]
    [True, False, False, False]
    """
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is above 65535 or no number
        return False


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


def ascii_host(name: str) -> str | None:
    """A host's name in lower case and in ASCII, without a dot at its end; None if `name` is no host."""
    if len(name) > _MAX_HOST + 1:
        return None
    try:
        encoded = name.rstrip(".").encode("idna").decode().lower()
    except UnicodeError:
        return None
    return encoded if len(encoded) <= _MAX_HOST and _ASCII_HOST.fullmatch(encoded) else None


class DomainList:
    """The hosts of a setting, separated by commas.

    An entry is a host, ``*.`` and a domain for the hosts below it, or ``*`` for all. Its port is 443, unless a port
    follows it.
    """

    def __init__(self, setting: str) -> None:
        """
        Raises:
            ValueError: an entry is none of these; the argument is the entry.
        """
        self._entries = frozenset(map(_entry, filter(None, map(str.strip, setting.split(",")))))

    def has(self, host: str, port: int) -> bool:
        """Whether an entry names this host, given as `ascii_host` returns it or as an IP address."""
        entries = self._entries
        if (host, port) in entries or ("*", port) in entries:
            return True
        labels = host.split(".")
        return any((f"*.{'.'.join(labels[n:])}", port) in entries for n in range(1, len(labels)))


def _entry(text: str) -> tuple[str, int]:
    name, _, port = text.partition(":")
    star = "*." if name.startswith("*.") else ""
    host = "*" if name == "*" else ascii_host(name.removeprefix(star))
    port = port or str(HTTPS_PORT)
    if not host or not port.isascii() or not port.isdigit():
        raise ValueError(text)
    return star + host, int(port)
