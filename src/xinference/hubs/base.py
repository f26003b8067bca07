"""What every hub can do: say which files a version needs, fetch them, and find them again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.files.progress import Progress
from xinference.hubs.cached_files import KeptFile


@dataclass(frozen=True)
class RemoteFile:
    """One file that a hub has."""

    name: str
    """Path inside the repository."""
    size: int | None = None
    """Bytes, or None if the hub does not say before the fetch."""
    sha256: str | None = None
    """Lower-case hex, or None if the hub does not say."""


class Hub(Protocol):
    """Where weights come from. Every method blocks; the controller calls them in a thread.

    `source` is one of ``version.spec.sources`` and names this hub.
    """

    @property
    def name(self) -> HubName: ...

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        """The files that the version's quantization needs.

        Raises:
            Problem: the hub does not have them, or had to be asked and could not be.
        """
        ...

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        """Bring the files here and verify them; at once if they are here already.

        Returns:
            The file (one GGUF file, or the first of its parts) or the folder (every other format).

        Raises:
            Problem: ``cancelled``, ``offline``, ``disk_full``, ``hub_unreachable``, ``package_not_found``,
                ``hash_mismatch``, ``download_failed``. Nothing half-fetched is taken for whole afterwards.
        """
        ...

    def cached(self, version: ModelVersion, source: Source) -> Path | None:
        """What `fetch` would return, if it is here, complete and verified. Opens no connection."""
        ...

    def kept(self, version: ModelVersion, source: Source) -> tuple[KeptFile, ...]:
        """The version's files that are here, whole or begun, and what was made of them. Opens no connection."""
        ...

    def forget(self, version: ModelVersion, source: Source) -> int:
        """Delete what `kept` lists, and nothing else; returns the bytes that this frees.

        Raises:
            Problem: ``outside_cache``, ``cannot_delete``.
        """
        ...
