"""Write a file so that it exists under its name only when it is whole and on the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xinference.errors import Problem

_POLL_SECONDS = 0.1
#: Left free beyond what the file needs, for the store and the logs.
_SPARE_BYTES = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(
    target: Path, cancelled: threading.Event, *, keep_existing: bool = False, durable: bool = True
) -> Iterator[BinaryIO | None]:
    """An empty file, open for writing, that becomes `target` when the block ends well.

    It lies beside `target` under a name of its own, locked: writers of one target take turns, and what a
    killed one left is overwritten by the next. With `keep_existing`, it is None if `target` is there when the turn
    comes. Not `durable`, it may be lost or full of holes after a power cut.

    Raises:
        Problem: ``cancelled`` while waiting, 507 ``disk_full``, or 500 ``cannot_write``; nothing is left behind.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial, cancelled, target) as file:
            try:
                if keep_existing and target.exists():
                    yield None
                    partial.unlink()
                else:
                    yield file
                    file.flush()
                    if durable:
                        os.fsync(file.fileno())
                    partial.replace(target)
            except BaseException:
                # Only here: once it is renamed, the name may be the next writer's already.
                partial.unlink(missing_ok=True)
                raise
        if durable:
            sync_folder(target.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(f"The disk of {target.parent} became full while {target.name} was written.") from error
        raise Problem(
            "cannot_write",
            500,
            f"{target} cannot be written: {error.strerror}.",
            hint="Check the folder's permissions and its disk.",
        ) from error


def need_space(folder: Path, size: int, what: str) -> None:
    """Check that `size` bytes fit beside `folder`'s other contents.

    Raises:
        Problem: 507 ``disk_full``, with what is needed, what is free, and where.
    """
    free = shutil.disk_usage(folder).free
    if size + _SPARE_BYTES > free:
        raise disk_full(f"{what} needs {size} bytes and {free} are free in {folder}.")


def cancelled_problem(what: str) -> Problem:
    """The problem of a file that was not finished because its writer was told to stop."""
    return Problem("cancelled", 499, f"Writing {what} was cancelled.", hint="Start again.")


@contextmanager
def _locked(partial: Path, cancelled: threading.Event, target: Path) -> Iterator[BinaryIO]:
    """`partial`, open and held against other threads and processes; death gives it back."""
    while True:
        with partial.open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled.wait(_POLL_SECONDS):
                        raise cancelled_problem(target.name) from None
            # Its last holder may have renamed or deleted it in the meantime: then it is another file's lock.
            if _is_at(file, partial):
                with partial.open("r+b") as writable:  # copy_file_range refuses a file opened for appending
                    if os.fstat(writable.fileno()).st_size:  # ext4 writes a file back at once that was cut to nothing
                        writable.truncate(0)
                    yield writable
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def disk_full(cause: str) -> Problem:
    """The problem of a disk without room."""
    return Problem(
        "disk_full", 507, cause, hint="Free some space, or set XINFERENCE_HOME to a folder on a larger disk."
    )


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
