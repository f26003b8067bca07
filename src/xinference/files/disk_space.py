"""The free space of disks, and the problem of a disk that has too little."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem

#: Bytes that stay free for the store and the logs.
RESERVE_BYTES = 64 << 20


def nearest_existing(folder: Path) -> Path:
    """The folder, or the first of its parents that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which need not exist."""
    return shutil.disk_usage(nearest_existing(folder)).free


def disk_full(cause: str) -> Problem:
    """The problem of a full disk."""
    return Problem(Code.DISK_FULL, cause, hint="Free some space, or set XINFERENCE_HOME to a folder on a larger disk.")


def need_space(folder: Path, size: int, what: str, problem: Callable[[str], Problem] = disk_full) -> None:
    """Check that the disk of `folder` has `size` bytes free, and a reserve for the store and the logs.

    Raises:
        Problem: the one that `problem` makes of the cause: required bytes, free bytes, and the folder.
    """
    free = shutil.disk_usage(folder).free
    if size + RESERVE_BYTES > free:
        raise problem(
            f"{what} needs {size} more bytes, and {RESERVE_BYTES} must stay free, but {folder} has {free} free."
        )
