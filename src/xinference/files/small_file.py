"""Reads small files that may be anything: no pipe or device is waited for, and no file without end is read."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

#: Maximum size of a file of settings or state, in bytes.
MAX_BYTES = 16 << 20


def read_small(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file, or of one that a link leads to.

    Raises:
        OSError: it cannot be read, is a folder, a pipe or a device, or has more than `max_bytes`.
    """
    # O_NONBLOCK: opening a pipe without a writer would wait for one.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "It is a folder", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "It is not a regular file", str(path))
        content = b""
        while len(content) <= max_bytes and (piece := file.read(max_bytes + 1 - len(content))):
            content += piece
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"It has more than {max_bytes} bytes", str(path))
    return content


def read_small_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8.

    Raises:
        OSError: as `read_small`; or it is not UTF-8.
    """
    try:
        return read_small(path, max_bytes).decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "It is not UTF-8 text", str(path)) from None


def read_small_object(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        OSError: as `read_small_text`; or it is not a JSON object.
    """
    try:
        value = json.loads(read_small_text(path, max_bytes))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise OSError(errno.EINVAL, "It is not a JSON object", str(path))
    return value
