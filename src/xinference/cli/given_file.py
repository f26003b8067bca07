"""Reads a file that the user has named, and which may be a pipe or a device: no more of it than a maximum."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from xinference.errors import bad_request
from xinference.files.small_file import MAX_BYTES


def read_given(file: BinaryIO, *, hint: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of an open file.

    Raises:
        OSError: it cannot be read.
        Problem: 400, it has more than `max_bytes`.
    """
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise bad_request(f"{name_of(file)} has more than {max_bytes} bytes.", hint=hint)
    return content


def read_named(path: Path, *, hint: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file.

    Raises:
        Problem: 400, it cannot be read, or has more than `max_bytes`.
    """
    try:
        with path.open("rb") as file:
            return read_given(file, hint=hint, max_bytes=max_bytes)
    except OSError as error:
        raise bad_request(f"{path} can't be read: {error.strerror}.", hint=hint) from None


def as_text(content: bytes, name: object, *, hint: str) -> str:
    """The text of a file of this name.

    Raises:
        Problem: 400, it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise bad_request(f"{name} is not UTF-8 text.", hint=hint) from None


def name_of(file: BinaryIO) -> str:
    """The name of an open file, as the user knows it."""
    return str(getattr(file, "name", "<stdin>"))
