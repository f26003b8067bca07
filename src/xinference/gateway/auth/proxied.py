"""Refuses requests that a proxy sends to a server on loopback without keys.

The proxy runs on this machine: neither `Host` nor the user of the connection says who has asked it.
"""

from __future__ import annotations

from collections.abc import Iterable

from xinference.config import Settings
from xinference.error_codes import Code
from xinference.gateway.auth.peer import is_forwarded
from xinference.keys.table import KeyTable
from xinference.protocol.errors import Header, Refusal


def refusal_of_proxy(table: KeyTable, headers: Iterable[Header], settings: Settings) -> Refusal | None:
    """The reason to refuse a request to a server on loopback; None: the server has keys, or no proxy has sent it."""
    if table.required or settings.allow_unauthenticated or not is_forwarded(headers):
        return None
    return Refusal(
        Code.PROXY_WITHOUT_KEYS,
        "A proxy has sent this request, and the server has no keys: whoever reaches the proxy would use the server.",
        hint="Create a key with `xinference keys create --scope use --scope manage`, and set "
        "XINFERENCE_ALLOWED_ORIGINS to the address of the proxy.",
    )
