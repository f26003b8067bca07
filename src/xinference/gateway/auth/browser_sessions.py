"""Finds the session of a browser by its cookie, and refuses requests that come from a page of another site.

A browser adds the cookie to each request to this server, whichever page causes it. So a request that changes something
must have a header that only a page of this server can set, and must not come from another site. `SameSite=Strict` keeps
the cookie from pages of other sites, but another port of the same host is the same site.
"""

from __future__ import annotations

from collections.abc import Iterable

from xinference.error_codes import Code
from xinference.gateway.auth.own_addresses import OwnAddresses
from xinference.gateway.routes import READ_METHODS
from xinference.keys.key import Key
from xinference.keys.session_cookie import PAGE_HEADER, cookie_name, cookie_value
from xinference.keys.table import KeyTable
from xinference.protocol.errors import Header, Refusal

#: Values of `Sec-Fetch-Site` for requests of this server's own page, and for an address that the user typed.
_OWN_SITE = b"same-origin"
_TYPED = b"none"
EVENT_STREAM = b"text/event-stream"


class BrowserSessions:
    """The check of requests with a cookie, for one server."""

    def __init__(self, port: int, addresses: OwnAddresses) -> None:
        """
        Args:
            port: that of the server; the cookie's name has it, because the ports of a host share their cookies.
            addresses: those at which the server's page is reached.
        """
        self._name = cookie_name(port).encode()
        self._addresses = addresses

    def find(self, table: KeyTable, method: str, headers: Iterable[Header]) -> Key | None:
        """The session that a request without a key belongs to, as a key.

        Raises:
            Refusal: 403, the request has the cookie of a session, and may come from another site.
        """
        named = dict(headers)
        secret = self._secret(headers)
        session = table.find_session(secret) if secret else None
        if session is not None:
            self._check_site(method, named)
        return session

    def end_of(self, table: KeyTable, headers: Iterable[Header]) -> Code | None:
        """Why the cookie of a request is that of no session; None: the request has no cookie of this server."""
        secret = self._secret(headers)
        return table.end_of_session(secret) if secret else None

    def _secret(self, headers: Iterable[Header]) -> bytes:
        return cookie_value((value for name, value in headers if name == b"cookie"), self._name)

    def _check_site(self, method: str, headers: dict[bytes, bytes]) -> None:
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        changes = method not in READ_METHODS
        if site is not None:
            is_own = site == _OWN_SITE or (site == _TYPED and not changes)
        else:  # a browser sends it to https and to loopback only
            is_own = not changes if origin is None else self._addresses.is_own(origin, headers.get(b"host", b""))
        if not is_own:
            raise _refusal("it comes from a page of another site")
        follows = EVENT_STREAM in headers.get(b"accept", b"")
        if (changes or follows) and headers.get(PAGE_HEADER[0]) != PAGE_HEADER[1]:
            raise _refusal("it has no header `X-Xinference: 1`, which the page of this server sends")


def _refusal(why: str) -> Refusal:
    return Refusal(
        Code.CROSS_SITE_REQUEST,
        f"The request has the cookie of a session, and is refused: {why}.",
        hint="Programs send a key: `Authorization: Bearer KEY`.",
    )
