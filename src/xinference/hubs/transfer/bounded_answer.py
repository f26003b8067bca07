"""Reads the answers of a hub's API within limits of bytes and time: a hub may send anything, and without end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

#: Maximum bytes of a list of files, decompressed; the lists of 100,000 files on Hugging Face have about 30 MB.
MAX_LIST_BYTES = 32 << 20
#: Maximum number of files in a list.
MAX_LISTED_FILES = 100_000
#: Maximum number of answers that one list consists of.
MAX_LIST_ANSWERS = 1000
#: Maximum seconds for the whole list.
MAX_LIST_SECONDS = 60.0
#: Maximum bytes of an error's body; the hub's clients look for a reason in it.
MAX_ERROR_BYTES = 64 << 10
#: The only compression that is requested: it expands a piece at most a thousandfold.
ENCODING = "gzip"


class AnswerTooLarge(ValueError):
    """An answer exceeds one of the limits; the text names it."""


class Allowance:
    """What the answers that make up one list may have together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + MAX_LIST_SECONDS
        self._bytes = 0
        self._answers = 0

    def begin_answer(self) -> None:
        """Count one more answer.

        Raises:
            AnswerTooLarge: there are too many, or the time is over.
        """
        self._answers += 1
        if self._answers > MAX_LIST_ANSWERS:
            raise AnswerTooLarge(f"it has more than {MAX_LIST_ANSWERS:,} pages")
        self.take(0)

    def take(self, count: int) -> None:
        """Count bytes.

        Raises:
            AnswerTooLarge: there are too many, or the time is over.
        """
        self._bytes += count
        if self._bytes > MAX_LIST_BYTES:
            raise AnswerTooLarge(f"it has more than {MAX_LIST_BYTES:,} bytes")
        if self._clock() > self._end:
            raise AnswerTooLarge(f"it was not complete after {MAX_LIST_SECONDS:g} s")


def read_list(response: httpx2.Response, allowance: Allowance) -> bytes:
    """The body of a successful answer.

    Raises:
        AnswerTooLarge: it exceeds the allowance, or has another compression than `ENCODING`.
        httpx2.HTTPError: the connection failed.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", ENCODING):
        raise AnswerTooLarge(f"it has the compression {encoding[:40]!r}, which was not requested")
    allowance.begin_answer()
    data = bytearray()
    for chunk in response.iter_bytes():
        allowance.take(len(chunk))
        data += chunk
    return bytes(data)


def read_error(response: httpx2.Response) -> httpx2.Response:
    """The answer of a failed request with the beginning of its body, as it was sent."""
    import httpx2

    data = bytearray()
    for chunk in response.iter_raw():
        data += chunk
        if len(data) >= MAX_ERROR_BYTES:
            break
    headers = [(name, value) for name, value in response.headers.items() if name.lower() not in _BODY_HEADERS]
    return httpx2.Response(
        response.status_code, headers=headers, content=bytes(data[:MAX_ERROR_BYTES]), request=response.request
    )


_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class CountedBody:
    """The body of an answer of `requests`, whose decoded bytes are counted; everything else is that of `raw`."""

    def __init__(self, raw: Any, allowance: Allowance) -> None:
        self._raw = raw
        self._allowance = allowance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read(self, *arguments: Any, **named: Any) -> bytes:
        return self._count(self._raw.read(*arguments, **named))

    def read1(self, *arguments: Any, **named: Any) -> bytes:
        return self._count(self._raw.read1(*arguments, **named))

    def stream(self, *arguments: Any, **named: Any) -> Iterator[bytes]:
        for chunk in self._raw.stream(*arguments, **named):
            yield self._count(chunk)

    def _count(self, data: bytes) -> bytes:
        self._allowance.take(len(data))
        return data


def count_answers(session: Any, allowance: Allowance) -> None:
    """Count all answers to a session of `requests`."""

    def begin(response: Any, *_: Any, **__: Any) -> None:
        allowance.begin_answer()
        response.raw = CountedBody(response.raw, allowance)

    session.headers["Accept-Encoding"] = ENCODING
    session.hooks["response"].append(begin)
