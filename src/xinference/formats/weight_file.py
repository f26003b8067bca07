"""Opens an untrusted weight file; every failure is reported as ``bad_weight_file``.

The path may come from a user without permission to read the server's files. If the file name is not that of a model,
the problem discloses neither the existence nor the content of the file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.formats.cursor import bad_weight_file

#: The endings of a model's file names. Weights with other names are read, too: a hub's cache has such names.
MODEL_ENDINGS = (".gguf", ".safetensors", ".bin", ".ggml", ".pt", ".pth", ".json", ".jinja")


def has_model_file_name(path: Path) -> bool:
    """Whether the file name is that of a model, so that a problem may describe the file at `path`."""
    return path.name.lower().endswith(MODEL_ENDINGS)


def not_a_weight_file(path: Path) -> Problem:
    """The problem of a path whose file name is not that of a model: the same for existing and missing files."""
    return bad_weight_file(
        path,
        "is not a readable weight file",
        f"Pass the path of an existing file whose name ends in {', '.join(MODEL_ENDINGS[:3])}, or of a model's folder.",
    )


@contextmanager
def weight_file(path: Path, expected: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file at `path`, unbuffered and open for reading, and its size in bytes.

    Args:
        path: a regular file, or a link to one.
        expected: the expected file for the hint, such as "the .gguf file itself".

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable or not a regular file, now or during a read; also if the
            caller raises it for the content. It is `not_a_weight_file` if the file name is not a model's.
    """
    try:
        with _open(path, expected) as (file, size):
            yield file, size
    except Problem as problem:
        if problem.code != Code.BAD_WEIGHT_FILE or has_model_file_name(path):
            raise
        raise not_a_weight_file(path) from None


@contextmanager
def _open(path: Path, expected: str) -> Iterator[tuple[BinaryIO, int]]:
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
