"""The files of a version in a cache, and their deletion without touching other files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xinference.error_codes import Code
from xinference.errors import Problem


@dataclass(frozen=True)
class CachedFile:
    """One cached file of a version, complete or partial."""

    path: Path
    """The path under the file's own name."""
    data: Path
    """The path of its bytes: `path` itself, or the target of the link."""
    root: Path
    """The cache's folder. Nothing outside it is deleted."""
    shared: bool = False
    """Another file has the same bytes: only `path` may be deleted."""

    @property
    def size(self) -> int:
        """Bytes; 0 if the file was deleted meanwhile."""
        try:
            return self.data.stat().st_size
        except OSError:
            return 0


def total_size(files: Iterable[CachedFile]) -> int:
    """Bytes of all files; bytes with two names count once."""
    return sum({file.data: file.size for file in files}.values())


def delete(files: Iterable[CachedFile]) -> int:
    """Delete the files and the folders that become empty; returns the freed bytes.

    Raises:
        Problem: 409 ``outside_cache``, before anything is deleted; 500 ``cannot_delete``.
    """
    files = tuple(files)
    for file in files:
        _check_inside(file)
    freed = 0
    for file in files:
        size = file.size
        try:
            file.path.unlink(missing_ok=True)
            if not file.shared:
                file.data.unlink(missing_ok=True)
                freed += size
        except OSError as error:
            raise Problem(
                Code.CANNOT_DELETE,
                f"{file.path} cannot be deleted: {error.strerror or error}.",
                hint="Check the folder's owner and permissions.",
            ) from error
        remove_empty(file.path.parent, file.root)
        remove_empty(file.data.parent, file.root)
    return freed


def remove_empty(folder: Path, root: Path) -> None:
    """Remove the folder and its parents below `root`, as far as they are empty."""
    while folder != root and folder.is_relative_to(root):
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        folder = folder.parent


def _check_inside(file: CachedFile) -> None:
    """Check the resolved path: a link among the parent folders may point outside the cache."""
    root = file.root.resolve()
    touched = [file.path] if file.shared else [file.path, file.data]
    for path in touched:
        real = Path(os.path.realpath(path.parent)) / path.name
        if not real.is_relative_to(root):
            raise Problem(
                Code.OUTSIDE_CACHE,
                f"{path} resolves to {real}, outside the cache {root}, so it is not deleted.",
                hint="Delete it by hand, if you do not need it.",
            )
