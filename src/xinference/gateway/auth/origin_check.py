"""Protects a server on loopback from web pages of other origins.

A page can make the user's browser send requests to 127.0.0.1, directly or by resolving its own name to that address
(DNS rebinding). A page cannot change the headers `Host` and `Origin`, so the check is based on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from xinference.error_codes import Code
from xinference.gateway.auth.own_addresses import OwnAddresses
from xinference.hosts import is_loopback
from xinference.protocol.errors import Header, Refusal

HINT = (
    "This server listens on loopback only: use http://127.0.0.1 or http://localhost, or start it with --host. Behind a "
    "reverse proxy, set XINFERENCE_ALLOWED_ORIGINS to the proxy's address."
)
NO_ADDRESSES = OwnAddresses("")
_CHECKED = frozenset({b"host", b"origin"})
#: The beginnings of the usual `Host`, up to the port; both have `_PORT_AT` bytes.
_USUAL_HOSTS = frozenset({b"127.0.0.1:", b"localhost:"})
_PORT_AT = 10
#: Maximum bytes of a host name (253, by RFC 1035) with its scheme and port. Longer values are not parsed: `urlsplit`
#: caches its last 128 arguments, and unauthenticated requests must not fill the memory.
_MAX_BYTES = 300


def refusal(
    headers: Iterable[Header], *, is_allowed: bool = False, addresses: OwnAddresses = NO_ADDRESSES
) -> Refusal | None:
    """The reason to refuse a request with these headers; None: accepted. `Host` may be missing (HTTP/1.0).

    Args:
        is_allowed: the setting `allow_origin` names the origin.
        addresses: those of reverse proxies in front of this server.
    """
    for name, value in headers:
        if name not in _CHECKED:
            continue
        if name == b"host":
            if not is_loopback_host(value) and not addresses.has_host(value):
                return Refusal(Code.FORBIDDEN_HOST, f"The Host {_quote(value)} is not this machine.", hint=HINT)
        elif not is_allowed and not is_loopback_origin(value) and not addresses.has_origin(value):
            return Refusal(Code.FORBIDDEN_HOST, f"The Origin {_quote(value)} is not this machine.", hint=HINT)
    return None


def is_usual(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request is accepted whose headers are all different; False: `refusal` decides.

    Nearly every request pays for this alone, so it parses nothing.
    """
    host = headers.get(b"host")
    return (
        host is not None
        and host[:_PORT_AT] in _USUAL_HOSTS
        and host[_PORT_AT:].isdigit()
        and b"origin" not in headers
        and b"x-forwarded-for" not in headers
        and b"x-forwarded-host" not in headers
        and b"x-forwarded-proto" not in headers
        and b"x-real-ip" not in headers
        and b"forwarded" not in headers
        and b"via" not in headers
    )


def is_loopback_host(value: bytes) -> bool:
    """Whether a `Host` header's value, with or without a port, names this machine."""
    return is_loopback_origin(b"//" + value)


def is_loopback_origin(value: bytes) -> bool:
    """Whether an `Origin` header's value (``scheme://host:port``) names this machine; ``null`` does not."""
    if len(value) > _MAX_BYTES:
        return False
    try:
        name = urlsplit(value.decode("ascii")).hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _quote(value: bytes) -> str:
    return repr(value[:200].decode("latin-1"))
