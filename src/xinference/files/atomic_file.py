"""Write a file so that it exists under its name only when it is whole and on the disk."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from xinference.errors import Problem
from xinference.files import durability
from xinference.files.durability import sync_folder
from xinference.files.locks import lock
from xinference.files.progress import cancelled_problem

Sync = Literal["before", "after", "never"]
"""When a file's bytes are on the disk: before it has its name; after that, with a mark beside it until then (see
`durability`); or whenever the system likes."""

#: Kept free for the store and the logs.
_RESERVE_BYTES = 64 << 20
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
                if keep_existing and durability.can_be_believed(target):
                    yield None
                    partial.unlink()
                else:
                    if sync == "after":
                        if not durability.can_be_believed(target):
                            target.unlink(missing_ok=True)  # before the new mark would vouch for it
                        durability.mark(target)
                    yield file
                    file.flush()
                    if sync == "before":
                        os.fsync(file.fileno())
                    partial.replace(target)
            except BaseException:
                # Only here: once it is renamed, the name may be the next writer's already.
                partial.unlink(missing_ok=True)
                if sync == "after" and not target.exists():
                    durability.mark_of(target).unlink(missing_ok=True)
                raise
        if sync == "before":
            sync_folder(target.parent)
        elif sync == "after":
            durability.sync_later(target)
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(f"The disk of {target.parent} became full while {target.name} was written.") from error
        raise Problem(
            "cannot_write",
            500,
            f"{target} cannot be written: {error.strerror}.",
            hint="Check the folder's permissions and its disk.",
        ) from error


def disk_full(cause: str) -> Problem:
    """The problem of a disk without space."""
    return Problem(
        "disk_full", 507, cause, hint="Free some space, or set XINFERENCE_HOME to a folder on a larger disk."
    )


def need_space(folder: Path, size: int, what: str, problem: Callable[[str], Problem] = disk_full) -> None:
    """Check that the disk of `folder` has `size` bytes free, and a reserve for the store and the logs.

    Raises:
        Problem: the one that `problem` makes of the cause: required bytes, free bytes, and the folder.
    """
    free = shutil.disk_usage(folder).free
    if size + _RESERVE_BYTES > free:
        raise problem(f"{what} needs {size} more bytes, but {folder} has {free} free.")


@contextmanager
def _locked(partial: Path, cancelled: threading.Event, target: Path) -> Iterator[BinaryIO]:
    """`partial`, open and held against other threads and processes; death gives it back."""
    while True:
        with partial.open("ab") as file:
            if not lock(file, cancelled):
                raise cancelled_problem(target.name, action="Writing", hint="Start again.")
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
