"""The end of a folder for sockets: it is deleted when neither a server nor a keeper uses it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from xinference.config import RUN_DIR_PREFIX

#: The file that a server locks in the folder.
LOCK_NAME = "server.lock"


def release_run_dir(folder: Path) -> None:
    """Delete the folder at the end of its server; while an engine still runs, its keeper deletes it later."""
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()


def delete_unused_run_dirs() -> None:
    """Delete this user's folders in the system's temporary folder whose server was killed and whose keepers ended."""
    with contextlib.suppress(OSError):
        for folder in list(Path(tempfile.gettempdir()).glob(f"{RUN_DIR_PREFIX}{os.getuid()}-*")):
            with contextlib.suppress(OSError):
                _delete_unused(folder)


def _delete_unused(folder: Path) -> None:
    if folder.lstat().st_uid != os.geteuid() or {path.name for path in folder.iterdir()} != {LOCK_NAME}:
        return
    handle = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        release_run_dir(folder)
    finally:
        os.close(handle)
