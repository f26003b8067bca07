"""How far uv is: it says nothing of bytes, but what it downloads grows, unpacked, in its cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class CacheGrowth:
    """Bytes that came into a uv cache since this was made.

    uv unpacks every wheel into a folder of its own, directly in the cache or in ``archive-v*``.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._before = set(self._folders())

    def bytes(self) -> int:
        """Bytes in the folders that are new; other builds that share the cache count too."""
        return sum(folder_bytes(folder) for folder in self._folders() if folder not in self._before)

    def _folders(self) -> Iterator[Path]:
        yield from self._cache.glob(".tmp*")
        yield from self._cache.glob("archive-v*/*")


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 -- ten thousands of files
            except FileNotFoundError:
                continue
    return total
