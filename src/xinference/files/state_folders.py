"""The folders of saved prompt states: one in memory and one on the disk for each model, readable by this user only.

The names are made from the home and from the model's uid, so that a server finds the folders of the one before it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from hashlib import blake2b
from pathlib import Path

from xinference.files.small_file import read_small_text

#: Linux's file system in memory.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 -- the folders in it belong to this user, which is checked
STAMP = "stamp"


def memory_root(home: Path) -> Path:
    """The folder of all states in memory of a home; on a system without a file system in memory, in the home."""
    if sys.platform == "linux" and os.access(IN_MEMORY, os.W_OK | os.X_OK):
        return IN_MEMORY / f"{prefix()}{_digest(str(home))}"
    return home / "states" / "memory"


def prefix() -> str:
    """The beginning of the names of this user's folders in memory."""
    return f"xinference-{os.geteuid()}-"


def memory_folder(home: Path, uid: str) -> Path:
    return memory_root(home) / _digest(uid)


def disk_folder(home: Path, uid: str) -> Path:
    return home / "states" / _digest(uid)


def make_private(folder: Path) -> None:
    """Make a folder that only this user can read, in a folder that only this user can read.

    Raises:
        OSError: it can't be made, or somebody else could have made it.
    """
    for path in (folder.parent, folder):
        make_one_private(path)


def make_one_private(path: Path) -> None:
    """Make a folder that only this user can read; the folders that contain it stay as they are.

    Raises:
        OSError: it can't be made, or somebody else could have made it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a folder of this user")
    if found.st_mode & 0o077:
        path.chmod(0o700)


def prepare(home: Path, uid: str, stamp: str) -> Path:
    """Make the folders of a model and return the one in memory. States of other weights or options are deleted.

    Raises:
        OSError: a folder can't be made.
    """
    memory, disk = memory_folder(home, uid), disk_folder(home, uid)
    wanted = _digest(stamp)
    for folder in (memory, disk):
        make_private(folder)
        mark = folder / STAMP
        if _read(mark) != wanted:
            delete_files(folder)
            mark.write_text(wanted, encoding="ascii")
    return memory


def used_bytes(home: Path, uid: str) -> int:
    """Bytes of the files of a model in memory."""
    used = 0
    with contextlib.suppress(OSError):
        for path in memory_folder(home, uid).iterdir():
            with contextlib.suppress(OSError):
                used += path.lstat().st_size
    return used


def remove(home: Path, uid: str) -> None:
    """Delete the folders of a model."""
    for folder in (memory_folder(home, uid), disk_folder(home, uid)):
        shutil.rmtree(folder, ignore_errors=True)


def delete_files(folder: Path, *kept: str) -> None:
    """Delete the files of a folder, except those that are named."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()


def _read(path: Path) -> str:
    try:
        return read_small_text(path)
    except OSError:
        return ""


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
