"""Reads the text of a pipe or file on standard input."""

from __future__ import annotations

import os
import stat
import sys

from xinference.errors import bad_request


def piped_text() -> str | None:
    """The text of a pipe or file on standard input; None for a terminal and for the null device.

    Raises:
        Problem: the text is not UTF-8.
    """
    if sys.stdin.isatty() or _is_null_device():
        return None
    try:
        content = sys.stdin.buffer.read()
    except OSError as error:
        raise bad_request(f"Standard input can't be read: {error.strerror}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_request(
            f"Standard input is not UTF-8 text: byte {content[error.start]:#04x} at position {error.start}.",
            hint="Convert it, for example with `iconv -f latin1 -t utf-8`.",
        ) from error
    return text if text.strip() else None


def _is_null_device() -> bool:
    try:
        return stat.S_ISCHR(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError):  # a stream of a test has no number
        return False
