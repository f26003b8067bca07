"""Marker files for files that are complete in memory but may not be on the disk yet.

After a power cut such a file may have its name and length but holes in its content. Its marker contains the id of the
boot in which it was written: until the next boot, the kernel has the complete content, and a crash or kill of the
writer has no effect.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from functools import cache
from pathlib import Path

from xinference.files.small_file import read_small_text

log = logging.getLogger(__name__)
SUFFIX = ".unsynced"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def marker_path(path: Path) -> Path:
    """The path of the marker of `path`."""
    return path.with_name(f".{path.name}{SUFFIX}")


def write_marker(path: Path) -> None:
    """Write the marker of `path`: the file may be damaged after a power cut. The marker is on the disk on return.

    Raises:
        OSError: it cannot be written.
    """
    with marker_path(path).open("w") as file:
        file.write(boot_id())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def is_intact(path: Path) -> bool:
    """Whether `path` exists and no power cut can have damaged it."""
    if not path.exists():
        return False
    try:
        return read_small_text(marker_path(path)) == boot_id()
    except FileNotFoundError:
        return True
    except OSError:  # the marker says nothing
        return False


def start_sync(path: Path) -> threading.Thread | None:
    """Sync a file with a marker to the disk in a new thread, then delete the marker; None: there is no marker."""
    if not marker_path(path).exists():
        return None
    # A daemon thread: the exit of the program must not wait for the disk. The marker remains for the next start.
    thread = threading.Thread(target=_sync, args=(path,), name=f"sync {path.name}", daemon=True)
    thread.start()
    return thread


def _sync(path: Path) -> None:
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(path.parent)
        marker_path(path).unlink(missing_ok=True)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # the file was deleted meanwhile, so its marker is obsolete
            marker_path(path).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is not on the disk yet and would be written again after a power cut: %s", path, error)


def sync_folder(folder: Path) -> None:
    """Sync `folder`, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def boot_id() -> str:
    """An id that is constant until the next boot; if the system provides none, it is valid in this process only."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"process {os.getpid()}"
