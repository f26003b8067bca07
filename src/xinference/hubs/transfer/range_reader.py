"""Reads parts of a file on a hub by HTTP ranges, such as its header, without downloading the whole file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import RawIOBase
from typing import TYPE_CHECKING, Any

from xinference.error_codes import Code
from xinference.errors import Problem

if TYPE_CHECKING:
    import httpx2

#: Bytes of one request: most headers are within the first few of these.
CHUNK = 4 << 20
#: Maximum bytes fetched of one file: ten times the longest headers (vocabularies of 10^6 texts).
MAX_BYTES = 256 << 20


class RangedFile(RawIOBase):
    """A file of `size` bytes, fetched piece by piece with ``fetch(start, count)``."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._position = 0
        self._fetched = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        count = min(len(buffer), max(0, self._size - self._position))
        if count == 0:
            return 0
        self._fetched += count
        if self._fetched > MAX_BYTES:
            raise Problem(
                Code.BAD_WEIGHT_FILE, f"The file's header has more than {MAX_BYTES} bytes, more than any model needs."
            )
        data = self._fetch(self._position, count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def fetch_range(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    start: int,
    count: int,
    refuse: Callable[[httpx2.Response], object],
) -> bytes:
    """`count` bytes of a file from offset `start` (fewer at its end); works also if the server ignores the range.

    Raises:
        httpx2.HTTPError; the exception of `refuse` at a status of 400 and above.
    """
    range_headers = {**headers, "Accept-Encoding": "identity", "Range": f"bytes={start}-{start + count - 1}"}
    with client.stream("GET", url, headers=range_headers, follow_redirects=True) as response:
        if response.status_code >= 400:
            response.read()
            refuse(response)
        skip = 0 if response.status_code == 206 else start
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) >= skip + count:
                break
        return bytes(data[skip : skip + count])
