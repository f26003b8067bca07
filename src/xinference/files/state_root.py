"""The lock on a home's folder of saved states in memory, which is deleted when its last user has ended.

The server and its engines hold a shared lock on the folder: the system frees it however a process ends. Whoever gets
the lock alone may delete the folder: an engine or a server at its end, and each server at its start, also for other
homes, whose processes were killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from xinference.files import state_folders

#: Attempts to lock a folder that another server deletes at the same moment.
TRIES = 5


@contextlib.contextmanager
def own_states(home: Path) -> Iterator[None]:
    """Delete the folders that nobody uses, and hold the lock on the home's own one; delete it at the end.

    While an engine still runs, the folder stays for the next server. Without a folder nothing is shared, and the server
    runs all the same.
    """
    delete_unused(state_folders.IN_MEMORY)
    root = state_folders.memory_root(home)
    handle = _lock(root)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
            _delete_unused(root)


def delete_unused(parent: Path) -> None:
    """Delete the folders of saved states of this user whose server and engines have ended."""
    with contextlib.suppress(OSError):
        for root in list(parent.glob(f"{state_folders.prefix()}*")):
            _delete_unused(root)


def _lock(root: Path) -> int | None:
    """Make the folder and lock it, shared; None: it can't be made, or is not this user's."""
    for _ in range(TRIES):
        handle = None
        try:
            state_folders.make_one_private(root)
            handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(handle), root.lstat()):
                return handle
        except FileNotFoundError:
            pass  # deleted by another server between two steps
        except OSError:
            if handle is not None:
                os.close(handle)
            return None
        if handle is not None:
            os.close(handle)
    return None


def _delete_unused(root: Path) -> None:
    """Delete a folder of this user unless a process holds its lock."""
    with contextlib.suppress(OSError):
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            found = os.fstat(handle)
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(root, ignore_errors=True)
        finally:
            os.close(handle)
