"""The interface of a hub: list the files that a version needs, fetch them, find and delete the cached ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.files.progress import Progress
from xinference.hubs.cached_files import CachedFile
from xinference.hubs.listing import Listing
from xinference.hubs.offer import Copy, Offer


@dataclass(frozen=True)
class RemoteFile:
    """One file on a hub."""

    name: str
    """Path inside the repository."""
    size: int | None = None
    """Bytes, or None if the hub does not report it before the fetch."""
    sha256: str | None = None
    """Lower-case hex, or None if the hub does not report it."""


@dataclass(frozen=True)
class FetchPreview:
    """The files that a fetch downloads and the disk space that it needs, before it begins."""

    files: tuple[RemoteFile, ...]
    """Every file of the version, also the cached ones."""
    space: Mapping[Path, int]
    """Existing folder -> bytes that the fetch adds to its disk, with its temporary files."""
    download_bytes: int | None = 0
    """Bytes of the files that are not cached; None: the hub does not report them before the fetch."""
    open: Callable[[str], BinaryIO] | None = None
    """Opens one of the files for reading: only the bytes that are read are fetched, and they are not stored.

    None: the files cannot be read before they are fetched.
    """


class Hub(Protocol):
    """A source of weights. Every method blocks; the controller calls them in a thread.

    `source` is one of ``version.spec.sources`` and names this hub.
    """

    @property
    def name(self) -> HubName: ...

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        """The files that the version's quantization needs.

        Raises:
            Problem: the hub does not have them, or its list is not cached and the hub cannot be reached.
        """
        ...

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        """What `fetch` would do now. Downloads no weights; a hub of repositories is sent one request.

        Raises:
            Problem: as `fetch`, for a version that the hub does not have, or a hub that cannot be reached.
        """
        ...

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        """Download the files and verify them; returns at once if they are cached.

        Returns:
            The file (one GGUF file, or the first of its parts) or the folder (every other format).

        Raises:
            Problem: ``cancelled``, ``offline``, ``disk_full``, ``hub_unreachable``, ``package_not_found``,
                ``hash_mismatch``, ``download_failed``. A partial download never counts as complete afterwards.
        """
        ...

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        """The path that `fetch` would return, if it is cached, complete and verified. Opens no connection."""
        ...

    def offer(self, version: ModelVersion, source: Source) -> Offer | None:
        """The files that a machine without them can copy; None: they are not cached. Opens no connection."""
        ...

    def receive(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        copy: Copy,
        progress: Progress,
        cancelled: threading.Event,
    ) -> Path:
        """As `fetch`, with the list and the bytes of another machine; neither is trusted.

        Raises:
            Problem: as `fetch`; any problem of `copy`; 502 ``peer_refused``: the list cannot be of the source.
        """
        ...

    def may_have_cached(self, source: Source) -> bool:
        """Whether `list_cached` may find a file of any version of the source. Cheap: it is asked of every source."""
        ...

    def list_cached(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        """The version's cached files, complete or partial, and the files joined from them. Opens no connection."""
        ...

    def delete_cached(self, version: ModelVersion, source: Source) -> int:
        """Delete the files of `list_cached`, and nothing else; returns the freed bytes.

        Raises:
            Problem: ``outside_cache``, ``cannot_delete``.
        """
        ...
