"""Reads parts of a file on a hub by HTTP ranges, such as its header, without downloading the whole file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import RawIOBase
from typing import TYPE_CHECKING, Any

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hubs.transfer.bounded_answer import read_error

if TYPE_CHECKING:
    import httpx2

#: Bytes of the first request, and of the largest one: each further request is twice the one before it.
FIRST_BYTES = 128 << 10
LARGEST_BYTES = 4 << 20
#: Maximum bytes that are read and dropped if a server ignores the range.
MAX_SKIPPED_BYTES = 8 << 20
#: Maximum bytes fetched of one file: twice the longest headers (vocabularies of 10^6 texts).
MAX_BYTES = 64 << 20


class HeaderFile(RawIOBase):
    """A file of `size` bytes whose header is read from the start, fetched piece by piece with ``fetch(start, count)``.

    The pieces grow, so that few bytes after the header are fetched, and a long header takes few requests.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._position = 0
        self._fetched = 0
        self._piece = b""
        self._piece_start = 0
        self._next_bytes = FIRST_BYTES

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
        if self._position >= self._size:
            return 0
        if not self._piece_start <= self._position < self._piece_start + len(self._piece):
            self._fetch_piece()
        data = self._piece[self._position - self._piece_start :][: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _fetch_piece(self) -> None:
        count = min(self._next_bytes, self._size - self._position)
        self._fetched += count
        if max(self._fetched, self._position) > MAX_BYTES:
            raise Problem(
                Code.BAD_WEIGHT_FILE, f"The file's header has more than {MAX_BYTES} bytes, more than any model needs."
            )
        self._piece, self._piece_start = self._fetch(self._position, count), self._position
        self._next_bytes = min(LARGEST_BYTES, 2 * self._next_bytes)


def fetch_range(
    client: httpx2.Client,
    url: str,
    headers: Mapping[str, str],
    start: int,
    count: int,
    refuse: Callable[[httpx2.Response], object],
) -> bytes:
    """`count` bytes of a file from offset `start` (fewer at its end); works also if the server ignores a low range.

    Raises:
        httpx2.HTTPError: also if the server ignores a range above `MAX_SKIPPED_BYTES`.
        The exception of `refuse` at a status of 400 and above.
    """
    import httpx2

    range_headers = {**headers, "Accept-Encoding": "identity", "Range": f"bytes={start}-{start + count - 1}"}
    with client.stream("GET", url, headers=range_headers, follow_redirects=True) as response:
        if response.status_code >= 400:
            refuse(read_error(response))
        skip = 0 if response.status_code == 206 else start
        if skip > MAX_SKIPPED_BYTES:
            raise httpx2.RemoteProtocolError("the server sends whole files instead of the requested bytes")
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) >= skip + count:
                break
        return bytes(data[skip : skip + count])
