"""Reads the owner's key: a user who can read a home may manage the server of that home."""

from __future__ import annotations

import httpx2

from xinference.config import Settings
from xinference.files.small_file import read_small_object, read_small_text
from xinference.hosts import address_of


def owner_key(settings: Settings) -> str | None:
    """The key of this home's running server, if ``settings.url`` is exactly the address that the server listens on.

    The key is sent to no other address, where another program could store it. It expires with the server.
    """
    asked = place(settings.url)
    endpoint = local_endpoint(settings)
    if asked is None or endpoint is None or asked != place(endpoint):
        return None
    try:
        return read_small_text(settings.owner_key_file).strip() or None
    except OSError:
        return None


def local_endpoint(settings: Settings) -> str | None:
    """The URL of this home's server for clients on this machine; None if no server has written its endpoint."""
    try:
        url = httpx2.URL(read_small_object(settings.server_file)["endpoint"])
    except (OSError, ValueError, KeyError, TypeError, httpx2.InvalidURL):
        return None
    address = address_of(url.host)
    if address is None:
        return None
    if address.is_unspecified:
        url = url.copy_with(host="127.0.0.1" if address.version == 4 else "::1")
    return str(url).rstrip("/")


def place(url: str) -> tuple[str, int | None] | None:
    """IP address and port of `url`; None if its host is a name other than localhost, or its scheme is not HTTP."""
    try:
        parsed = httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        return None
    address = address_of(parsed.host)
    return (str(address), parsed.port) if address is not None and parsed.scheme == "http" else None
