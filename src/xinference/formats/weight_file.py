"""Opens an untrusted weight file; every failure becomes ``bad_weight_file``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xinference.formats.cursor import bad_weight_file


@contextmanager
def weight_file(path: Path, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file at `path`, unbuffered and open for reading, and its size in bytes.

    Args:
        path: a regular file, or a link to one.
        expected: the expected file for the hint, such as "the .gguf file itself".

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable or not a regular file, now or during a read.
    """
    try:
        # Checked before opening: opening a named pipe would wait for a writer.
        status = _stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise bad_weight_file(path, f"is {kind}", f"Pass {expected}.")
        with path.open("rb", buffering=0) as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise bad_weight_file(path, "does not exist", "Check the path.") from None
    except OSError as error:
        raise bad_weight_file(
            path, f"cannot be read: {error.strerror}", "Check its permissions and its disk."
        ) from error


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError as error:  # a NUL byte in the path
        raise bad_weight_file(path, f"cannot be read: {error}", "Check the path.") from error
