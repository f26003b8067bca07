"""The temporary folder of an engine: its keeper makes it, and deletes it when the engine's processes have ended.

Without it, engines leave files in the system's temporary folder: vLLM leaves its sockets at each end, and every program
leaves what it has open when it is killed. Standard library only, because the keeper imports it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from xinference.process.folder_locks import delete_unused, lock_shared

#: The longest name of a socket that an engine makes in the folder (vLLM: a UUID), with room for a suffix.
SOCKET_NAME_BYTES = 40
#: Maximum length of the path of a Unix socket.
MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103


def scratch_prefix() -> str:
    """The beginning of the names of this user's folders."""
    return f"xinference-engine-{os.geteuid()}-"


def scratch_folder(socket_path: Path) -> Path:
    """The folder of the engine whose keeper listens at `socket_path`, which only this user knows."""
    digest = hashlib.sha256(os.fsencode(socket_path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"{scratch_prefix()}{digest}"


def make_scratch(socket_path: Path) -> tuple[Path, int] | None:
    """Make the folder and lock it; returns it with the descriptor of the lock.

    None: it can't be made, somebody else could have made it, or its path is too long for a socket in it; then the
    engine uses the system's temporary folder.
    """
    folder = scratch_folder(socket_path)
    if len(os.fsencode(folder)) + 1 + SOCKET_NAME_BYTES > MAX_SOCKET_PATH:
        return None
    remove_scratch(socket_path)  # of an engine that was killed with its keeper
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700)
        if (lock := lock_shared(folder)) is not None:
            return folder, lock
    return None


def remove_scratch(socket_path: Path) -> None:
    """Delete the folder with all that the engine has left in it."""
    folder = scratch_folder(socket_path)
    with contextlib.suppress(OSError):
        if folder.lstat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)  # follows no link


def delete_unused_scratch() -> None:
    """Delete the folders of this user's engines that were killed with their keepers, whatever their home is."""
    with contextlib.suppress(OSError):  # no temporary folder can be written to
        delete_unused(Path(tempfile.gettempdir()), scratch_prefix())
