"""The lock on a home's folder of saved states in memory, which is deleted when its last user has ended.

The server and its engines hold a shared lock on the folder. Whoever gets the lock alone may delete the folder: an
engine or a server at its end, and each server at its start, also for other homes, whose processes were killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from xinference.files import state_folders
from xinference.process.folder_locks import delete_if_unused, delete_unused, lock_shared

#: Attempts to lock a folder that another server deletes at the same moment.
TRIES = 5


@contextlib.contextmanager
def own_states(home: Path) -> Iterator[None]:
    """Delete the folders that nobody uses, and hold the lock on the home's own one; delete it at the end.

    While an engine still runs, the folder stays for the next server. Without a folder nothing is shared, and the server
    runs all the same.
    """
    delete_unused(state_folders.IN_MEMORY, state_folders.prefix())
    root = state_folders.memory_root(home)
    handle = _make_locked(root)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
            delete_if_unused(root)


def _make_locked(root: Path) -> int | None:
    """Make the folder and lock it, shared; None: it can't be made, or is not this user's."""
    for _ in range(TRIES):
        try:
            state_folders.make_one_private(root)
        except FileNotFoundError:
            continue  # deleted by another server between two steps
        except OSError:
            return None
        if (handle := lock_shared(root)) is not None:
            return handle
    return None
