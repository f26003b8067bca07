"""Base of Hugging Face and ModelScope: repositories of files at revisions, stored in the hub's own cache."""

from __future__ import annotations

import errno
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from xinference.catalog.models import ModelVersion, Source
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.disk_space import nearest_existing, need_space
from xinference.files.progress import Progress
from xinference.hubs import problems
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.hubs.listing import ListedFile, Listing, check_source, is_listed
from xinference.hubs.offer import Copy
from xinference.hubs.repositories.cached_repositories import CachedRepositories
from xinference.hubs.repositories.cached_version import has_size
from xinference.hubs.selection import choose_files, must_join, wanted_names
from xinference.hubs.transfer.bounded_answer import MAX_LISTED_FILES
from xinference.hubs.transfer.join_parts import join
from xinference.hubs.transfer.parallel import Report, fetch_all, run_cancellable
from xinference.hubs.transfer.range_reader import HeaderFile


class RepositoryHub(CachedRepositories):
    """A `Hub` of repositories. A subclass implements the protocol of one hub and the layout of its cache."""

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        super().__init__(settings, shared)
        self._offline = settings.offline

    # -- the protocol of one hub ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def terms(self) -> problems.HubTerms:
        """Name and variables for the texts of its problems; read from the environment at each call."""

    @abstractmethod
    def _can_be(self, requested: str | None, revision: str) -> bool:
        """Whether `requested` (None: the default branch) can refer to `revision`, which another machine names."""

    @abstractmethod
    def _list(self, model_id: str, revision: str | None) -> Listing:
        """Request the file list from the hub. Raises `Problem`."""

    @abstractmethod
    def _fetch_one(
        self,
        model_id: str,
        listing: Listing,
        file: ListedFile,
        report: Report,
        stop: threading.Event,
        copy: Copy | None = None,
    ) -> None:
        """Store one file in the cache, verified: by `copy`, or from the hub. Raises `Problem`, `Stopped`, `OSError`."""

    @abstractmethod
    def _fetch_range(self, model_id: str, listing: Listing, file: ListedFile, start: int, count: int) -> bytes:
        """`count` bytes of a file from offset `start`, without storing them. Raises `Problem`."""

    @abstractmethod
    def _cached_bytes(self, model_id: str, listing: Listing, file: ListedFile) -> int:
        """Bytes of the file that are cached."""

    def _finish(self, model_id: str, listing: Listing, requested: str | None) -> None:
        """Called when all files of a listing are cached."""

    def offline_setting(self) -> str | None:
        """The name of the setting that forbids connections, or None."""
        return "XINFERENCE_OFFLINE" if self._offline else None

    # -- the same for every hub -----------------------------------------------------------------------------

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        """The files that the version's quantization needs. Sends a request only if no list is stored."""
        check_source(source)
        revisions = self._cached_revisions(source.model_id, source.revision)
        listings = (self._stored_listing(source.model_id, revision) for revision in revisions)
        listing = next((each for each in listings if each is not None), None)
        if listing is None:
            self._check_online(version)
            listing = self._read_list(source.model_id, source.revision)
        chosen = choose_files(version, source, listing.files)
        return [RemoteFile(file.name, file.size, file.sha256) for file in chosen]

    def receive(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        copy: Copy,
        progress: Progress,
        cancelled: threading.Event,
    ) -> Path:
        check_source(source)
        if not self._can_be(source.revision, listing.revision):
            raise problems.peer_refused(f"the revision {listing.revision!r} of {source.model_id}")
        files = choose_files(version, source, listing.files)
        with self._disk_problems(version, source, listing):
            return self._fetch_files(version, source, listing, files, progress, cancelled, copy)

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        check_source(source)
        self._check_online(version)
        listing = self._read_list(source.model_id, source.revision)
        files = choose_files(version, source, listing.files)
        by_name = {file.name: file for file in files}
        return FetchPreview(
            tuple(RemoteFile(file.name, file.size, file.sha256) for file in files),
            self._space(version, source, listing, files),
            self._missing_bytes(source, listing, files),
            lambda name: self.open_file(source.model_id, listing, by_name[name]),
        )

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        if path := self.find_cached(version, source):
            return path
        self._check_online(version)
        listing = run_cancellable(
            lambda: self._read_list(source.model_id, source.revision), cancelled, version.version_id
        )
        files = choose_files(version, source, listing.files)
        with self._disk_problems(version, source, listing):
            return self._fetch_files(version, source, listing, files, progress, cancelled)

    @contextmanager
    def _disk_problems(self, version: ModelVersion, source: Source, listing: Listing) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._folder(source.model_id, listing.revision)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                cause = f"The disk of {where} became full while fetching {version.version_id}."
                raise problems.disk_full(self.terms, cause) from error
            cause = f"{error.filename or where} cannot be written: {error.strerror or error}."
            raise Problem(Code.CANNOT_WRITE, cause, hint="Check the folder's owner and permissions.") from error

    def listing(self, model_id: str, revision: str | None = None) -> Listing:
        """The file list of any repository, also of one that no family refers to. Sends a request.

        Raises:
            Problem: ``bad_source``, ``offline``, ``repo_not_found``, ``gated_model``, ``hub_unreachable``.
        """
        check_source(Source(hub=self.name, model_id=model_id, revision=revision))
        if variable := self.offline_setting():
            raise problems.offline(self.terms, model_id, variable)
        return self._read_list(model_id, revision)

    def _read_list(self, model_id: str, revision: str | None) -> Listing:
        """The file list from the hub, whose answer may be anything, and fails in the hub's client anywhere.

        Raises:
            Problem: as `_list`; 503 ``hub_unreachable``: the answer is not a list of files.
        """
        try:
            listing = self._list(model_id, revision)
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
            raise self._odd_list(model_id, str(error) or type(error).__name__) from error
        if len(listing.files) > MAX_LISTED_FILES:
            raise self._odd_list(model_id, f"it has more than {MAX_LISTED_FILES:,} files")
        if odd := next((file for file in listing.files if not is_listed(file)), None):
            raise self._odd_list(model_id, f"a file has the name {odd.name!r:.80} and the size {odd.size!r:.40}")
        return listing

    def _odd_list(self, model_id: str, reason: str) -> Problem:
        return problems.unreachable(self.terms, f"its list of the files of {model_id} cannot be read ({reason:.200})")

    def small_file(self, model_id: str, listing: Listing, name: str, max_bytes: int) -> bytes | None:
        """A file of a listing, stored in the cache; None if it is not listed or larger than `max_bytes`.

        Raises:
            Problem: as `Hub.fetch`.
        """
        file = next((each for each in listing.files if each.name == name and each.size <= max_bytes), None)
        if file is None:
            return None
        stop = threading.Event()
        fetch_all(
            [file],
            lambda file, report, stop: self._fetch_one(model_id, listing, file, report, stop),
            lambda done, total, name: None,
            stop,
            f"{name} of {model_id}",
        )
        return (self._folder(model_id, listing.revision) / name).read_bytes()

    def open_file(self, model_id: str, listing: Listing, file: ListedFile) -> BinaryIO:
        """A file of a listing, open for reading. If it is not cached, only the bytes that are read are fetched.

        Reading it raises `Problem`, as `Hub.fetch` does.
        """
        path = self._folder(model_id, listing.revision) / file.name
        if has_size(path, file.size):
            return path.open("rb")
        return BufferedReader(
            HeaderFile(file.size, lambda start, count: self._fetch_range(model_id, listing, file, start, count))
        )

    def _fetch_files(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        files: Sequence[ListedFile],
        progress: Progress,
        cancelled: threading.Event,
        copy: Copy | None = None,
    ) -> Path:
        if listing.is_whole:
            self._listings.save(source.model_id, listing, source.revision)
        names = wanted_names(version, source)
        join_them = names is not None and must_join(names)
        for where, size in self._space(version, source, listing, files).items():
            if size:
                need_space(where, size, version.version_id, partial(problems.disk_full, self.terms))
        fetch_all(
            files,
            lambda file, report, stop: self._fetch_one(source.model_id, listing, file, report, stop, copy),
            progress,
            cancelled,
            version.version_id,
        )
        self._finish(source.model_id, listing, source.revision)
        folder = self._folder(source.model_id, listing.revision)
        if join_them:
            parts = [folder / file.name for file in files]
            return join(parts, self._at(version, source, listing.revision).joined, progress, cancelled)
        return folder if names is None else folder / names[0]

    def _check_online(self, version: ModelVersion) -> None:
        if variable := self.offline_setting():
            raise problems.offline(self.terms, version.version_id, variable)

    def _missing_bytes(self, source: Source, listing: Listing, files: Sequence[ListedFile]) -> int:
        return sum(file.size - self._cached_bytes(source.model_id, listing, file) for file in files)

    def _space(
        self, version: ModelVersion, source: Source, listing: Listing, files: Sequence[ListedFile]
    ) -> dict[Path, int]:
        """Existing folder -> bytes that a fetch adds to its disk."""
        names = wanted_names(version, source)
        folder = nearest_existing(self._folder(source.model_id, listing.revision))
        missing = self._missing_bytes(source, listing, files)
        if names is None or not must_join(names):
            return {folder: missing}
        joined = nearest_existing(self._joined)
        same_disk = folder.stat().st_dev == joined.stat().st_dev
        whole = sum(file.size for file in files)
        return {folder: missing + whole} if same_disk else {folder: missing, joined: whole}
