"""The addresses at which a server is reached, besides that on which it listens: those of its reverse proxies."""

from __future__ import annotations

from urllib.parse import urlsplit

#: Maximum bytes of an address; longer values are not parsed.
_MAX_BYTES = 300


class OwnAddresses:
    """The origins that `XINFERENCE_ALLOWED_ORIGINS` names, such as ``https://ai.example.org``."""

    def __init__(self, setting: str) -> None:
        origins = (origin.strip().rstrip("/").lower() for origin in setting.split(","))
        self._origins = frozenset(origin.encode() for origin in origins if origin)
        self._hosts = frozenset(filter(None, (urlsplit(origin.decode()).netloc.encode() for origin in self._origins)))

    def has_host(self, value: bytes) -> bool:
        """Whether a `Host` header names one of them."""
        return value.lower() in self._hosts

    def has_origin(self, value: bytes) -> bool:
        """Whether an `Origin` header names one of them."""
        return value.lower() in self._origins

    def is_own(self, origin: bytes, host: bytes) -> bool:
        """Whether a page of `origin` is one of this server, which the browser has asked as `host`."""
        if self.has_origin(origin):
            return True
        scheme, _, rest = origin[:_MAX_BYTES].lower().partition(b"://")
        return scheme in (b"http", b"https") and rest != b"" and rest == host.lower()
