"""Locks on folders of this user: each process that uses a folder holds a shared lock; an unused folder is deleted.

The system frees a lock however its process ends. Standard library only, because the keeper imports this module.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path


def lock_shared(folder: Path) -> int | None:
    """Lock the folder as one of its users, until the returned descriptor is closed or this process ends.

    None: it is not a folder of this user, or another process has deleted it before it was locked.
    """
    return _lock(folder, fcntl.LOCK_SH)


def delete_unused(parent: Path, prefix: str) -> None:
    """Delete this user's unused folders in `parent` whose names begin with `prefix`."""
    with contextlib.suppress(OSError):
        for folder in list(parent.glob(f"{prefix}*")):
            delete_if_unused(folder)


def delete_if_unused(folder: Path) -> None:
    """Delete a folder of this user with all that it contains, unless a process has locked it."""
    handle = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if handle is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _lock(folder: Path, operation: int) -> int | None:
    """The descriptor of the locked folder.

    None: it is not a folder of this user, it was deleted meanwhile, or another process has locked it.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        opened = os.fstat(handle)
        if opened.st_uid == os.geteuid():
            fcntl.flock(handle, operation)
            # Another process may have deleted the folder, and made it again, since it was opened.
            if os.path.samestat(opened, folder.lstat()):
                return handle
    os.close(handle)
    return None
