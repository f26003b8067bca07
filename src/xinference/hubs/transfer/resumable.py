"""Downloads one URL to one file, with resumption, progress, a hash and cancellation.

huggingface_hub 2.4 restarts a file in every process, checks only its length and cannot be cancelled. So this module
transfers the bytes of that hub, with the same HTTP library and into the same cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2

from xinference.hubs.transfer.bounded_answer import read_error
from xinference.hubs.transfer.parallel import Report, check_stop, pause
from xinference.hubs.transfer.partial_file import Digest, PartialFile

RETRIES = 5
"""Consecutive failures without a new byte after which a transfer fails."""
#: Content delivery networks refuse more than 50 GB in one answer, but not ranges of a larger file.
_SPAN = 32 << 30
_RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class Unavailable(Exception):
    """The server answered that it is temporarily unavailable."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__(f"it answered {response.status_code} {response.reason_phrase}".rstrip())
        after = response.headers.get("Retry-After", "")
        self.retry_after = float(after) if after.isdigit() else None


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
    with PartialFile(partial, size, digest, report, stop) as file:
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


def _attempt(
    client: httpx2.Client,
    request: httpx2.Request,
    file: PartialFile,
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
            refuse(read_error(response))
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {file.length}-")
        if file.length and not (response.status_code == 206 and resumes):
            file.restart()  # the server sends the file from its beginning
        for chunk in response.iter_bytes():
            file.append(chunk)
    finally:
        response.close()
