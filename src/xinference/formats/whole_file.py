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
from typing import BinaryIO, Literal

from xinference.errors import Problem
from xinference.formats import unsynced
from xinference.formats.unsynced import sync_folder

Sync = Literal["before", "after", "never"]
"""When a file's bytes are on the disk: before it has its name; after that, with a mark beside it until then (see
`unsynced`); or whenever the system likes."""

_POLL_SECONDS = 0.1
#: Left free beyond what the file needs, for the store and the logs.
_SPARE_BYTES = 64 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(
    target: Path, cancelled: threading.Event, *, keep_existing: bool = False, sync: Sync = "before"
) -> Iterator[BinaryIO | None]:
    """An empty file, open for writing, that becomes `target` when the block ends well.

    It lies beside `target` under a name of its own, locked: writers of one target take turns, and what a
    killed one left is overwritten by the next. With `keep_existing`, it is None if a `target` that can be believed is
    there when the turn comes. With `sync` "never", it may be lost or full of holes after a power cut.

    Raises:
        Problem: ``cancelled`` while waiting, 507 ``disk_full``, or 500 ``cannot_write``; nothing is left behind.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(partial, cancelled, target) as file:
            try:
                if keep_existing and unsynced.can_be_believed(target):
                    yield None
                    partial.unlink()
                else:
                    if sync == "after":
                        if not unsynced.can_be_believed(target):
                            target.unlink(missing_ok=True)  # before the new mark would vouch for it
                        unsynced.mark(target)
                    yield file
                    file.flush()
                    if sync == "before":
                        os.fsync(file.fileno())
                    partial.replace(target)
            except BaseException:
                # Only here: once it is renamed, the name may be the next writer's already.
                partial.unlink(missing_ok=True)
                if sync == "after" and not target.exists():
                    unsynced.mark_of(target).unlink(missing_ok=True)
                raise
        if sync == "before":
            sync_folder(target.parent)
        elif sync == "after":
            unsynced.sync_later(target)
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(f"The disk of {target.parent} became full while {target.name} was written.") from error
        raise Problem(
            "cannot_write",
            500,
            f"{target} cannot be written: {error.strerror}.",
            hint="Check the folder's permissions and its disk.",
        ) from error


def lock(file: BinaryIO, cancelled: threading.Event) -> bool:
    """Hold an open file against other threads and processes, after waiting for it; False: cancelled before that."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if cancelled.wait(_POLL_SECONDS):
                return False


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
            if not lock(file, cancelled):
                raise cancelled_problem(target.name)
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
