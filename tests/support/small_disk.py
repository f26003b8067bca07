"""A disk that a test can fill: a file system in memory of a few megabytes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave not one free byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                while True:
                    try:
                        if file.write(b"x" * size) < size:
                            break
                    except OSError as error:
                        assert error.errno == errno.ENOSPC
                        break

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)


def can_mount() -> bool:
    """Whether this user may mount a file system."""
    try:
        with small_disk("1m"):
            return True
    except pytest.skip.Exception:
        return False


@contextmanager
def small_disk(size: str = "8m") -> Iterator[SmallDisk]:
    """Mount a disk for the block; the test is skipped where this user may not."""
    folder = Path(tempfile.mkdtemp(prefix="xi-disk-"))
    if os.geteuid() != 0 or shutil.which("mount") is None:
        folder.rmdir()
        pytest.skip("only root can mount a file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", os.fspath(folder)])
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("this system does not let root mount a file system")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
        folder.rmdir()
