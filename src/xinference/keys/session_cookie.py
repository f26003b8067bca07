"""The cookie of a session, and the header that a request of the page has."""

from __future__ import annotations

from collections.abc import Iterable

#: A page of another site cannot set it without the permission of this server, which is never given.
PAGE_HEADER = (b"x-xinference", b"1")


def cookie_name(port: int) -> str:
    """The cookie's name on the server of this port: two servers of one host have two sessions."""
    return f"xinference_{port}"


def set_cookie(port: int, secret: str, *, max_age: float, is_tls: bool) -> str:
    """The value of `Set-Cookie`. No script reads the cookie, and no other site makes the browser send it."""
    secure = "; Secure" if is_tls else ""
    return f"{cookie_name(port)}={secret}; Max-Age={max_age:.0f}; Path=/; HttpOnly; SameSite=Strict{secure}"


def cookie_value(headers: Iterable[bytes], name: bytes) -> bytes:
    """The value of the cookie `name` in `Cookie` headers; empty: there is none."""
    for header in headers:
        for pair in header.split(b";"):
            found, _, value = pair.partition(b"=")
            if found.strip() == name:
                return value.strip()
    return b""
