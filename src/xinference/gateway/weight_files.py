"""``GET /w/<digest>/<file>`` of a front door: sends the rest of a file that this node offers to other nodes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from xinference.gateway.http.asgi import Reply, Scope

log = logging.getLogger(__name__)
PREFIX = "/w/"
#: Bytes that are read and sent at once.
PIECE_BYTES = 1024 * 1024
#: Maximum number of files that are sent at the same time: the others wait, so that streams of tokens get their turn.
MAX_SENDS = 8
_RANGE = re.compile(rb"bytes=(\d{1,18})-")
_TYPE = (b"content-type", b"application/octet-stream")


class WeightFiles:
    """Sends files.

    Args:
        find: the path of a file by digest and name, if this node offers it; nothing else is ever opened.
    """

    def __init__(self, find: Callable[[str, str], Path | None]) -> None:
        self._find = find
        self._turns = asyncio.Semaphore(MAX_SENDS)

    async def answer(self, scope: Scope, reply: Reply) -> None:
        """Answer one request: 206 with the bytes from the range's start, 404, 416."""
        digest, _, name = scope["path"].removeprefix(PREFIX).partition("/")
        wanted = _RANGE.fullmatch(dict(scope["headers"]).get(b"range", b"bytes=0-"))
        path = self._find(digest, name)
        if path is None:
            await reply.whole(404, b"{}")
            return
        try:
            file = await asyncio.to_thread(_open, path)
        except OSError as error:
            log.warning("%s, which is offered, cannot be read: %s", path, error.strerror or error)
            await reply.whole(404, b"{}")
            return
        try:
            size = os.fstat(file).st_size
            start = int(wanted[1]) if wanted is not None else size
            if start >= size:
                await reply.whole(416, b"{}", [(b"content-range", b"bytes */%d" % size)])
                return
            async with self._turns:
                await _send(reply, file, start, size)
        finally:
            os.close(file)


def _open(path: Path) -> int:
    """Open a regular file that is no link: the path is the real one, from when the file was offered."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError("it is no regular file")
    return file


async def _send(reply: Reply, file: int, start: int, size: int) -> None:
    """Send the bytes from `start`; the next piece is read while one is sent."""
    span = b"bytes %d-%d/%d" % (start, size - 1, size)
    await reply.start(206, [_TYPE, (b"content-length", b"%d" % (size - start)), (b"content-range", span)])
    position = start
    reading = asyncio.ensure_future(asyncio.to_thread(os.pread, file, PIECE_BYTES, position))
    try:
        while position < size:
            piece = (await reading)[: size - position]
            if not piece:
                return  # the file became shorter: the answer stays incomplete, and the peer notices
            position += len(piece)
            reading = asyncio.ensure_future(asyncio.to_thread(os.pread, file, PIECE_BYTES, position))
            await reply.send({"type": "http.response.body", "body": piece, "more_body": position < size})
        reply.ended = True
    finally:
        await asyncio.gather(reading, return_exceptions=True)  # nobody may close the file under a thread
