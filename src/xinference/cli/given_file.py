"""Reads a text file that the user has named, and which may be a pipe or a device: at most 16 MiB of it."""

from __future__ import annotations

from typing import TextIO

from xinference.errors import bad_request
from xinference.files.small_file import MAX_BYTES


def read_given(file: TextIO, *, hint: str) -> str:
    """The text of an open file.

    Raises:
        OSError: it cannot be read.
        Problem: 400, it is not UTF-8, or has more than `MAX_BYTES`.
    """
    try:
        text = file.read(MAX_BYTES + 1)
    except UnicodeDecodeError:
        raise bad_request(f"{file.name} is not UTF-8 text.", hint=hint) from None
    if len(text) > MAX_BYTES:
        raise bad_request(f"{file.name} has more than {MAX_BYTES} bytes.", hint=hint)
    return text
