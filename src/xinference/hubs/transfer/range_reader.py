"""A file on a hub, read in pieces where it is: its header tells what the rest is, and the rest stays there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import RawIOBase
from typing import TYPE_CHECKING, Any

from xinference.errors import Problem

if TYPE_CHECKING:
    import httpx2

#: Bytes that are asked for at once: most headers are in the first few of these.
CHUNK = 4 << 20
#: Most bytes that are fetched of one file: the longest headers (vocabularies of 10^6 texts) have a tenth of it.
MOST = 256 << 20


class RangedFile(RawIOBase):
    """`size` bytes that `fetch` (from a start, so many) brings piece by piece."""

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
        if self._fetched > MOST:
            raise Problem(
                "bad_weight_file", 400, f"The file's header has more than {MOST} bytes, which no model's has."
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
    """`count` bytes of a file from `start` on (fewer if it ends before); also of servers that send it whole.

    Raises:
        httpx2.HTTPError; and what `refuse` raises at a status of 400 and above.
    """
    asked = {**headers, "Accept-Encoding": "identity", "Range": f"bytes={start}-{start + count - 1}"}
    with client.stream("GET", url, headers=asked, follow_redirects=True) as response:
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
