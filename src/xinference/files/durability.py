"""Files that are whole in memory but may not be on the disk yet: a mark beside each says so until they are.

A power cut may leave such a file full of holes, under its name and with its length. The mark names the boot it was
made in: while the machine has not been started anew, what the kernel was given is what a reader gets, and a crash or
kill of the writer changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
SUFFIX = ".unsynced"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def mark_of(path: Path) -> Path:
    """Where the mark of `path` lies."""
    return path.with_name(f".{path.name}{SUFFIX}")


def mark(path: Path) -> None:
    """Say that `path` must not be believed after a power cut; on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    with mark_of(path).open("w") as file:
        file.write(boot())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def can_be_believed(path: Path) -> bool:
    """Whether `path` is there and no power cut can have harmed it."""
    if not path.exists():
        return False
    try:
        return mark_of(path).read_text() == boot()
    except FileNotFoundError:
        return True


def sync_later(path: Path) -> threading.Thread | None:
    """Bring a marked `path` to the disk in a thread of its own, and take the mark away then; None: not marked."""
    if not mark_of(path).exists():
        return None
    # A daemon: ending the program must not wait for the disk, the mark stays and the next start does this again.
    thread = threading.Thread(target=_sync, args=(path,), name=f"sync {path.name}", daemon=True)
    thread.start()
    return thread


def _sync(path: Path) -> None:
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(path.parent)
        mark_of(path).unlink(missing_ok=True)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # deleted in the meantime: nothing is left to be said about it
            mark_of(path).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is not on the disk yet and will be made again after a power cut: %s", path, error)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@cache
def boot() -> str:
    """What is the same until the machine is started anew; where the system does not tell, it is never the same."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return f"process {os.getpid()}"
