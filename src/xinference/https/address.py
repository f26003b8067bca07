"""An ``https:`` address, read strictly: what cannot be read in one way only is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin

from xinference.hosts import HTTPS_PORT, ascii_host, host_in_url

#: Maximum number of characters of an address; signed addresses of object stores have about 2,000.
MAX_LENGTH = 8192
_URL = re.compile(r"https://(?P<authority>[^/?#]*)(?P<target>[^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:@]+))(?::(?P<port>[0-9]{1,5})?)?")
_SPACE_OR_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class HttpsAddress:
    """An ``https:`` address."""

    host: str
    """In lower case and in ASCII; an IPv6 address without brackets."""
    port: int
    target: str
    """The path with the query, as the request line has it."""

    @property
    def authority(self) -> str:
        """The value of the header ``Host``."""
        host = host_in_url(self.host)
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    def follow(self, location: str) -> str:
        """The address that a redirect from here names."""
        return urljoin(f"https://{self.authority}{self.target}", location)


def parse(text: str) -> HttpsAddress | None:
    """The parts of an ``https:`` address; None for any other text, and for an address with a user or a password."""
    match = None if len(text) > MAX_LENGTH or _SPACE_OR_CONTROL.search(text) else _URL.fullmatch(text)
    authority = match and _AUTHORITY.fullmatch(match["authority"])
    if not match or not authority:
        return None
    host = _ipv6(authority["ipv6"]) if authority["ipv6"] else ascii_host(authority["name"])
    port = int(authority["port"] or HTTPS_PORT)
    if not host or not 0 < port < 65536:
        return None
    target = quote(match["target"], safe=_PRINTABLE, errors="replace")
    return HttpsAddress(host, port, target if target.startswith("/") else f"/{target}")


def _ipv6(text: str) -> str | None:
    try:
        return str(IPv6Address(text))
    except ValueError:
        return None
