"""Writes a file that exists under its name only when it is complete and on the disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files import durability
from xinference.files.disk_space import disk_full
from xinference.files.durability import sync_folder
from xinference.files.locks import lock
from xinference.files.progress import cancelled_problem
from xinference.files.write_errors import is_disk_full

Sync = Literal["before", "after", "never"]
"""The time at which a file is synced to the disk: before it gets its name; after that, with a marker until then (see
`durability`); or not explicitly."""


@contextmanager
def atomic_write(
    target: Path, cancelled: threading.Event, *, keep_existing: bool = False, sync: Sync = "before"
) -> Iterator[BinaryIO | None]:
    """An empty file, open for writing, that becomes `target` when the block ends without an exception.

    The file is in `target`'s folder under another name, and locked: writers of one target wait for each other, and the
    file of a killed writer is overwritten. With `keep_existing`, the file is None if an intact `target` exists when the
    lock is acquired. With `sync` "never", `target` may be lost or have holes after a power cut.

    Raises:
        Problem: ``cancelled`` while waiting, 507 ``disk_full``, or 500 ``cannot_write``; no partial file remains.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open_locked(partial, cancelled, target) as file:
            try:
                if keep_existing and durability.is_intact(target):
                    yield None
                    partial.unlink()
                else:
                    if sync == "after":
                        if not durability.is_intact(target):
                            target.unlink(missing_ok=True)  # the new marker would declare it intact
                        durability.write_marker(target)
                    yield file
                    file.flush()
                    if sync == "before":
                        os.fsync(file.fileno())
                    partial.replace(target)
            except BaseException:
                # Only in this case: after the rename, the name may already belong to the next writer's file.
                partial.unlink(missing_ok=True)
                if sync == "after" and not target.exists():
                    durability.marker_path(target).unlink(missing_ok=True)
                raise
        if sync == "before":
            sync_folder(target.parent)
        elif sync == "after":
            durability.start_sync(target)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(f"The disk of {target.parent} became full while {target.name} was written.") from error
        raise Problem(
            Code.CANNOT_WRITE,
            f"{target} cannot be written: {error.strerror}.",
            hint="Check the folder's permissions and its disk.",
        ) from error


@contextmanager
def _open_locked(partial: Path, cancelled: threading.Event, target: Path) -> Iterator[BinaryIO]:
    """`partial`, open and locked against other threads and processes; the lock of a dead process is released."""
    while True:
        with partial.open("ab") as file:
            if not lock(file, cancelled):
                raise cancelled_problem(target.name, action="Writing", hint="Start again.")
            # The previous owner of the lock may have renamed or deleted the file: then this is a lock of another file.
            if _is_at(file, partial):
                with partial.open("r+b") as writable:  # copy_file_range refuses a file in append mode
                    if os.fstat(writable.fileno()).st_size:  # only if needed: ext4 syncs a truncated file at once
                        writable.truncate(0)
                    yield writable
                return


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
