"""The key that commands use at this home's own server: whoever may read the home may manage what it runs."""

from __future__ import annotations

import ipaddress
import json

import httpx2

from xinference.config import Settings


def owner_key(settings: Settings) -> str | None:
    """The key of this home's running server, if ``settings.url`` is the very address that it listens at.

    It is sent to no other address: what listens there might keep it. The key is worth nothing once its server ended.
    """
    place = _place(settings.url)
    endpoint = local_endpoint(settings)
    if place is None or endpoint is None or place != _place(endpoint):
        return None
    try:
        return settings.owner_key_file.read_text().strip() or None
    except OSError:
        return None


def local_endpoint(settings: Settings) -> str | None:
    """Where this home's server says that it listens, as this machine reaches it; None: it has said nothing."""
    try:
        endpoint = json.loads(settings.server_file.read_text())["endpoint"]
        url = httpx2.URL(endpoint)
        address = ipaddress.ip_address("127.0.0.1" if url.host == "localhost" else url.host)
    except (OSError, ValueError, KeyError, TypeError, httpx2.InvalidURL):
        return None
    if address.is_unspecified:
        url = url.copy_with(host="127.0.0.1" if address.version == 4 else "::1")
    return str(url).rstrip("/")


def _place(url: str) -> tuple[str, int | None] | None:
    """Address and port of `url`; None if it names a host by another name than localhost, or is no plain HTTP."""
    try:
        parsed = httpx2.URL(url)
        address = ipaddress.ip_address("127.0.0.1" if parsed.host == "localhost" else parsed.host)
    except (ValueError, httpx2.InvalidURL):
        return None
    return (str(address), parsed.port) if parsed.scheme == "http" else None
