"""Downloads one URL to one file, with resumption, progress, a hash and cancellation.

huggingface_hub 2.4 restarts a file in every process, checks only its length and cannot be cancelled. So this module
transfers the bytes of that hub, with the same HTTP library and into the same cache.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx2

from xinference.hubs.transfer.parallel import Report, check_stop, pause

RETRIES = 5
"""Consecutive failures without a new byte after which a transfer fails."""
_CHUNK = 1 << 20
#: Content delivery networks refuse more than 50 GB in one answer, but not ranges of a larger file.
_SPAN = 32 << 30
_RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Unavailable(Exception):
    """The server answered that it is temporarily unavailable."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"it answered {response.status_code} {response.reason_phrase}".rstrip())
        after = response.headers.get("Retry-After", "")
        self.retry_after = float(after) if after.isdigit() else None


class TooLong(Exception):
    """The server sent more bytes than the file has."""


def transfer(
    client: httpx2.Client,
    request: Callable[[], httpx2.Request],
    partial: Path,
    size: int,
    digest: Callable[[], Digest],
    report: Report,
    stop: threading.Event,
    refuse: Callable[[httpx2.Response], None],
) -> str:
    """Append to `partial` until it has `size` bytes; bytes from an earlier run are not requested again.

    `digest` makes an empty hash. `refuse` raises the hub's own error for a final answer.

    Returns:
        The hash of the whole file, as hex.

    Raises:
        httpx2.TransportError, Unavailable: after `RETRIES` consecutive failures.
        TooLong, Stopped, OSError, and the exceptions of `refuse`.
    """
    failures = 0
    with _Partial(partial, size, digest, report, stop) as file:
        while file.length < size:
            before = file.length
            retry_after = None
            try:
                _attempt(client, request(), file, stop, refuse)
            except (httpx2.TransportError, Unavailable) as error:
                failures = 1 if file.length > before else failures + 1
                if failures > RETRIES:
                    raise
                retry_after = error.retry_after if isinstance(error, Unavailable) else None
            else:
                if file.length > before:
                    continue  # a range of a large file, or an answer that ended early: resume from there
                failures += 1
                if failures > RETRIES:
                    raise httpx2.RemoteProtocolError(f"the answer ended after {file.length} of {size} bytes")
            pause(stop, failures, retry_after)
        return file.hexdigest()


class _Partial:
    """The partial file and the hash of its content."""

    def __init__(
        self, path: Path, size: int, digest: Callable[[], Digest], report: Report, stop: threading.Event
    ) -> None:
        self.length = 0
        self.size = size
        self._new_digest = digest
        self._digest = digest()
        self._report = report
        self._stop = stop
        self._file = path.open("ab+")

    def __enter__(self) -> _Partial:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            self._take(chunk)
        if self.length > self.size:  # not the beginning of this file
            self.restart()
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def append(self, chunk: bytes) -> None:
        if self.length + len(chunk) > self.size:
            raise TooLong
        self._file.write(chunk)
        self._take(chunk)

    def restart(self) -> None:
        self._file.truncate(0)
        self._report(-self.length)
        self.length = 0
        self._digest = self._new_digest()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _take(self, chunk: bytes) -> None:
        check_stop(self._stop)
        self.length += len(chunk)
        self._digest.update(chunk)
        self._report(len(chunk))


def _attempt(
    client: httpx2.Client,
    request: httpx2.Request,
    file: _Partial,
    stop: threading.Event,
    refuse: Callable[[httpx2.Response], None],
) -> None:
    check_stop(stop)
    request.headers["Accept-Encoding"] = "identity"
    if file.length or file.size > _SPAN:
        end = "" if file.size - file.length <= _SPAN else file.length + _SPAN - 1
        request.headers["Range"] = f"bytes={file.length}-{end}"
    response = client.send(request, stream=True, follow_redirects=True)
    try:
        if response.status_code in _RETRY_STATUS:
            raise Unavailable(response)
        if response.status_code == 416:
            file.restart()
            return
        if response.status_code >= 400:
            response.read()
            refuse(response)
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {file.length}-")
        if file.length and not (response.status_code == 206 and resumes):
            file.restart()  # the server sends the file from its beginning
        for chunk in response.iter_bytes():
            file.append(chunk)
    finally:
        response.close()


def git_sha1(size: int) -> Digest:
    """An empty hash for git's object id of a blob of `size` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
