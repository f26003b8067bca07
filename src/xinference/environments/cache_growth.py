"""Progress of uv, which reports no bytes: measured by the growth of its cache, where it unpacks downloads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class CacheGrowth:
    """Bytes that were added to a uv cache since this object was made.

    uv unpacks every wheel into a separate folder, directly in the cache or in ``archive-v*``.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._before = set(self._folders())

    def bytes(self) -> int:
        """Bytes in the new folders; other builds that share the cache count too."""
        return sum(folder_bytes(folder) for folder in self._folders() if folder not in self._before)

    def _folders(self) -> Iterator[Path]:
        yield from self._cache.glob(".tmp*")
        yield from self._cache.glob("archive-v*/*")


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that disappear meanwhile do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 -- a `Path` is slow for tens of thousands of files
            except FileNotFoundError:
                continue
    return total
