"""What Hugging Face and ModelScope have in common: repositories of files at revisions, kept in the hub's own cache."""

from __future__ import annotations

import errno
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from msgspec import structs

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem
from xinference.files.atomic_file import need_space
from xinference.files.progress import Progress
from xinference.hubs import problems
from xinference.hubs.base import RemoteFile
from xinference.hubs.cached_files import KeptFile, delete
from xinference.hubs.completeness import is_whole_file, is_whole_folder
from xinference.hubs.listing import ListedFile, Listing, Listings, check_source
from xinference.hubs.selection import choose_files, joined_name, must_join, wanted_names
from xinference.hubs.transfer.join_parts import join
from xinference.hubs.transfer.parallel import Report, ask, fetch_all
from xinference.hubs.transfer.range_reader import CHUNK, RangedFile


class RepositoryHub(ABC):
    """A `Hub` over repositories. A subclass knows one hub's protocol and the layout of its cache."""

    def __init__(self, settings: Settings) -> None:
        self._offline = settings.offline
        self._joined = settings.cache_dir / "joined" / self.name
        self._listings = Listings(settings.cache_dir / "listings" / self.name)

    # -- what a subclass knows --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> HubName: ...

    @property
    @abstractmethod
    def words(self) -> problems.Words:
        """What its problems call things; read from the environment at each call."""

    @abstractmethod
    def _folder(self, model_id: str, revision: str) -> Path:
        """Where the cache keeps the repository's files at a revision, under their own names."""

    @abstractmethod
    def _here(self, model_id: str, revision: str | None) -> Sequence[str]:
        """The revisions that `revision` (None: the default branch) may stand for, by the cache alone."""

    @abstractmethod
    def _list(self, model_id: str, revision: str | None) -> Listing:
        """Ask the hub. Raises `Problem`."""

    @abstractmethod
    def _fetch_one(
        self, model_id: str, listing: Listing, file: ListedFile, report: Report, stop: threading.Event
    ) -> None:
        """Bring one file to its place in the cache, verified. Raises `Problem`, `Stopped` or `OSError`."""

    @abstractmethod
    def _fetch_range(self, model_id: str, listing: Listing, file: ListedFile, start: int, count: int) -> bytes:
        """These bytes of a file, without bringing it to the cache. Raises `Problem`."""

    @abstractmethod
    def _present(self, model_id: str, listing: Listing, file: ListedFile) -> int:
        """Bytes of the file that need not be fetched again."""

    def _finish(self, model_id: str, listing: Listing, asked: str | None) -> None:  # noqa: B027 -- an offer
        """All files are there."""

    @abstractmethod
    def _kept_of(self, model_id: str, revision: str, files: Sequence[ListedFile]) -> Sequence[KeptFile]:
        """Of these files, what is in the cache, whole or begun."""

    def _tidy(self, model_id: str) -> None:  # noqa: B027 -- an offer
        """Files of the repository were deleted: take away what only spoke of them."""

    def offline_because(self) -> str | None:
        """The name of the setting that forbids connections, or None."""
        return "XINFERENCE_OFFLINE" if self._offline else None

    def _known(self, model_id: str, revision: str) -> Listing | None:
        """The list of a revision, if this machine has it."""
        return self._listings.load(model_id, revision)

    # -- what every hub does ----------------------------------------------------------------------------------

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        """See `Hub.files`. Asks the hub, unless an earlier fetch kept its answer."""
        check_source(source)
        kept = [self._known(source.model_id, revision) for revision in self._here(source.model_id, source.revision)]
        listing = next((each for each in kept if each is not None), None)
        if listing is None:
            self._check_online(version)
            listing = self._list(source.model_id, source.revision)
        chosen = choose_files(version, source, listing.files)
        return [RemoteFile(file.name, file.size, file.sha256) for file in chosen]

    def cached(self, version: ModelVersion, source: Source) -> Path | None:
        """See `Hub.cached`. What the hub's own tool fetched counts too."""
        check_source(source)
        for revision in self._here(source.model_id, source.revision):
            if path := self._cached_at(version, source, revision):
                return path
        return None

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        """See `Hub.fetch`."""
        if path := self.cached(version, source):
            return path
        self._check_online(version)
        listing = ask(lambda: self._list(source.model_id, source.revision), cancelled, version.version_id)
        files = choose_files(version, source, listing.files)
        try:
            return self._fetch_files(version, source, listing, files, progress, cancelled)
        except OSError as error:
            where = self._folder(source.model_id, listing.revision)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                cause = f"The disk of {where} ran full while fetching {version.version_id}."
                raise problems.no_room(self.words, cause) from error
            cause = f"{error.filename or where} cannot be written: {error.strerror or error}."
            raise Problem("download_failed", 500, cause, hint="Check the folder's owner and permissions.") from error

    def listing(self, model_id: str, revision: str | None = None) -> Listing:
        """Everything that a repository has, whether a family names it or not; the hub is asked.

        Raises:
            Problem: ``bad_source``, ``offline``, ``repo_not_found``, ``gated_model``, ``hub_unreachable``.
        """
        check_source(Source(hub=self.name, model_id=model_id, revision=revision))
        if why := self.offline_because():
            raise problems.offline(self.words, model_id, why)
        return self._list(model_id, revision)

    def small_file(self, model_id: str, listing: Listing, name: str, most: int) -> bytes | None:
        """A file of a listing, brought into the cache; None if it is not in there or has more than `most` bytes.

        Raises:
            Problem: as `Hub.fetch`.
        """
        file = next((each for each in listing.files if each.name == name and each.size <= most), None)
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
        """A file of a listing, open for reading; only what is read of it is fetched, if it is not in the cache.

        Reading it raises `Problem`, as `Hub.fetch`.
        """
        path = self._folder(model_id, listing.revision) / file.name
        if _has_size(path, file.size):
            return path.open("rb")
        return BufferedReader(
            RangedFile(file.size, lambda start, count: self._fetch_range(model_id, listing, file, start, count)), CHUNK
        )

    def kept(self, version: ModelVersion, source: Source) -> tuple[KeptFile, ...]:
        """See `Hub.kept`."""
        check_source(source)
        begun = self._listings.begun(source.model_id, source.revision)
        found: dict[Path, KeptFile] = {}
        for revision in dict.fromkeys((*self._here(source.model_id, source.revision), *((begun,) if begun else ()))):
            for file in self._kept_of(source.model_id, revision, self._claimed(version, source, revision)):
                found[file.path] = file
            joined = self._joined_path(version, source, revision)
            for path in (joined, joined.with_name(f".{joined.name}.partial")):
                if path.is_file():
                    found[path] = KeptFile(path, path, self._joined)
        return tuple(found.values())

    def forget(self, version: ModelVersion, source: Source) -> int:
        """See `Hub.forget`."""
        freed = delete(self._only_its_own(version, source))
        self._tidy(source.model_id)
        return freed

    def _only_its_own(self, version: ModelVersion, source: Source) -> tuple[KeptFile, ...]:
        """What is here of a version, without the projectors that another quantization sees through."""
        kept = self.kept(version, source)
        others = (q for q in version.spec.quantizations if q != version.quantization)
        if source.projectors and any(self.cached(structs.replace(version, quantization=q), source) for q in others):
            shared = tuple(f"/{name}" for name in source.projectors)
            return tuple(file for file in kept if not file.path.as_posix().endswith(shared))
        return kept

    def _claimed(self, version: ModelVersion, source: Source, revision: str) -> tuple[ListedFile, ...]:
        """The files of a revision that are the version's, as far as this machine knows."""
        listing = self._known(source.model_id, revision)
        listed = listing.files if listing else _files_in(self._folder(source.model_id, revision))
        names = wanted_names(version, source)
        if names is not None:
            by_name = {file.name: file for file in listed}
            return tuple(by_name[name] for name in (*names, *source.projectors) if name in by_name)
        try:
            return choose_files(version, source, listed)
        except Problem:  # not the folder of a model
            return ()

    def _fetch_files(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        files: Sequence[ListedFile],
        progress: Progress,
        cancelled: threading.Event,
    ) -> Path:
        self._listings.save(source.model_id, listing, source.revision)
        names = wanted_names(version, source)
        join_them = names is not None and must_join(names)
        self._need_space(version, source, listing, files, join_them)
        fetch_all(
            files,
            lambda file, report, stop: self._fetch_one(source.model_id, listing, file, report, stop),
            progress,
            cancelled,
            version.version_id,
        )
        self._finish(source.model_id, listing, source.revision)
        folder = self._folder(source.model_id, listing.revision)
        if join_them:
            parts = [folder / file.name for file in files]
            return join(parts, self._joined_path(version, source, listing.revision), progress, cancelled)
        return folder if names is None else folder / names[0]

    def _cached_at(self, version: ModelVersion, source: Source, revision: str) -> Path | None:
        folder = self._folder(source.model_id, revision)
        names = wanted_names(version, source)
        listing = self._known(source.model_id, revision)
        if listing is None:
            return _unlisted(folder, names, source, version.quantization)
        try:
            files = choose_files(version, source, listing.files)
        except Problem:  # the hub does not have it at this revision, and so neither do we
            return None
        if names is not None and must_join(names):
            path = self._joined_path(version, source, revision)
            return path if _has_size(path, sum(file.size for file in files)) else None
        if not all(_has_size(folder / file.name, file.size) for file in files):
            return None
        return folder if names is None else folder / names[0]

    def _joined_path(self, version: ModelVersion, source: Source, revision: str) -> Path:
        folder = self._joined / source.model_id.replace("/", "--") / revision.replace("/", "--")
        return folder / joined_name(version, source)

    def _check_online(self, version: ModelVersion) -> None:
        if why := self.offline_because():
            raise problems.offline(self.words, version.version_id, why)

    def _need_space(
        self, version: ModelVersion, source: Source, listing: Listing, files: Sequence[ListedFile], join_them: bool
    ) -> None:
        folder = _nearest(self._folder(source.model_id, listing.revision))
        missing = sum(file.size - self._present(source.model_id, listing, file) for file in files)
        needs = {folder: missing}
        if join_them:
            joined = _nearest(self._joined)
            same_disk = folder.stat().st_dev == joined.stat().st_dev
            whole = sum(file.size for file in files)
            needs = {folder: missing + whole} if same_disk else {folder: missing, joined: whole}
        for where, size in needs.items():
            if size:
                need_space(where, size, version.version_id, partial(problems.no_room, self.words))


def _nearest(folder: Path) -> Path:
    """The folder, or the first of its parents that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _unlisted(folder: Path, names: tuple[str, ...] | None, source: Source, quantization: str) -> Path | None:
    """Weights that another tool fetched, if they are whole as far as they tell themselves."""
    if names is None:
        return folder if is_whole_folder(folder) else None
    if must_join(names):
        return None  # nothing tells whether all parts are here; a fetch asks the hub and joins them
    facts = source.facts.get(quantization)
    if facts is not None and facts.size is not None and not _has_size(folder / names[0], facts.size):
        return None
    beside = source.projectors if len(source.projectors) == 1 else ()
    return folder / names[0] if all(is_whole_file(folder / name) for name in (*names, *beside)) else None


def _files_in(folder: Path) -> tuple[ListedFile, ...]:
    """A list made of what is there, of a folder that another tool fetched."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return tuple(ListedFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False
