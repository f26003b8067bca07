"""Open a weight file that may be anything: every way in which that fails is one kind of problem.

A path comes from a user who may not read the server's files. Of a file that is not named like a model's, a problem
says neither whether it exists nor what it contains.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xinference.errors import Problem
from xinference.formats.cursor import bad_weight_file

#: How the files of models are named. Weights without such a name are read, too, as a hub's cache keeps them.
MODEL_ENDINGS = (".gguf", ".safetensors", ".bin", ".ggml", ".pt", ".pth", ".json", ".jinja")


def named_like_a_model(path: Path) -> bool:
    """Whether problems may tell what is wrong with the file at `path`."""
    return path.name.lower().endswith(MODEL_ENDINGS)


def no_weights(path: Path) -> Problem:
    """The problem of a path that is not named like a model's file: the same whatever is there, and if nothing is."""
    return bad_weight_file(
        path,
        "is not a weight file that the server can read",
        f"Give the path of a file that exists and whose name ends in {', '.join(MODEL_ENDINGS[:3])}, or of the folder "
        "of a model.",
    )


@contextmanager
def weight_file(path: Path, give: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file at `path`, unbuffered and open for reading, and its size in bytes.

    Args:
        path: a regular file, or a link to one.
        give: what should have been given, such as "the .gguf file itself", for the hint.

    Raises:
        Problem: 400 ``bad_weight_file``: missing, unreadable or not a regular file, now or while it is read; also
            if the caller raises it of what it reads. It is `no_weights` if the file is not named like a model's.
    """
    try:
        with _opened(path, give) as (file, size):
            yield file, size
    except Problem as problem:
        if problem.code != "bad_weight_file" or named_like_a_model(path):
            raise
        raise no_weights(path) from None


@contextmanager
def _opened(path: Path, give: str) -> Iterator[tuple[BinaryIO, int]]:
    try:
        # Asked before it is opened: opening a named pipe would wait for a writer.
        status = _stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise bad_weight_file(path, f"is {kind}", f"Give {give}.")
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
