"""The cached files of a hub's repositories, those in the shared folder included. Opens no connection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from os.path import isdir
from pathlib import Path

from msgspec import structs

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.config import Settings
from xinference.hubs.cached_files import CachedFile, delete
from xinference.hubs.listing import ListedFile, Listing, Listings, check_source
from xinference.hubs.offer import Offer, are_inside, offer_of
from xinference.hubs.repositories.cached_version import CachedVersion


class CachedRepositories(ABC):
    """The part of a `RepositoryHub` that needs no connection. A subclass implements the layout of one hub's cache."""

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        """`shared`: the folder of another machine's caches, which is only read; None: the caches of this machine."""
        self._shared_folder = shared
        cache = shared or settings.cache_dir
        self._joined = cache / "joined" / self.name
        self._locks = cache / "locks" / self.name
        self._listings = Listings(cache / "listings" / self.name)
        self.shared: CachedRepositories | None = None
        """The same hub's files in the shared folder, which are used where they are."""

    # -- the cache of one hub -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> HubName: ...

    @property
    @abstractmethod
    def _root(self) -> Path:
        """The cache's folder of all repositories."""

    @abstractmethod
    def _folder(self, model_id: str, revision: str) -> Path:
        """The cache's folder with the repository's files at a revision, under their own names."""

    @abstractmethod
    def _cached_revisions(self, model_id: str, revision: str | None) -> Sequence[str]:
        """The revisions that `revision` (None: the default branch) may refer to, by the cache alone."""

    @abstractmethod
    def _list_cached(self, model_id: str, revision: str, files: Sequence[ListedFile]) -> Sequence[CachedFile]:
        """The cached files among `files`, complete or partial."""

    @abstractmethod
    def _cache_folders(self, model_id: str) -> Iterable[str]:
        """The folders that a repository can have in the cache."""

    def _delete_metadata(self, model_id: str) -> None:  # noqa: B027 -- a hub may do nothing here
        """Called after files of the repository were deleted: delete metadata that refers only to them."""

    def _stored_listing(self, model_id: str, revision: str) -> Listing | None:
        """The list of a revision, if it is stored on this machine."""
        return self._listings.load(model_id, revision)

    # -- the same for every hub -----------------------------------------------------------------------------

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        """The path of the complete and verified files; files from the hub's own tool are included.

        Also files in the shared folder, which are used there.
        """
        if self._has_folder(source):
            for revision in self._cached_revisions(source.model_id, source.revision):
                if path := self._at(version, source, revision).find():
                    return path
        if self.shared is None or not self.shared.may_have_cached(source):
            return None
        path = self.shared.find_cached(version, source)
        return path if path is not None and self.shared.is_inside(path) else None

    def is_inside(self, path: Path) -> bool:
        """Whether no link of a cached version, one file or a folder, leads out of the caches."""
        folder = path if path.is_dir() else path.parent  # an engine finds the further parts of a file by itself
        return are_inside((path, *folder.rglob("*")), (self._root, self._joined), "it is not used")

    def offer(self, version: ModelVersion, source: Source) -> Offer | None:
        roots = (self._root, self._joined)
        for revision in self._cached_revisions(source.model_id, source.revision) if self._has_folder(source) else ():
            cached = self._at(version, source, revision)
            if cached.find() is None:
                continue
            files = cached.files()
            listing = cached.listing or Listing(revision, files, is_whole=False)
            if files and (offered := offer_of(listing, files, cached.folder, roots)) is not None:
                return offered
        return None if self.shared is None else self.shared.offer(version, source)

    def may_have_cached(self, source: Source) -> bool:
        return self._has_folder(source) or (self.shared is not None and self.shared.may_have_cached(source))

    def list_cached(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        if not self._has_folder(source):
            return ()
        last = self._listings.last_revision(source.model_id, source.revision)
        files: dict[Path, CachedFile] = {}
        revisions = self._cached_revisions(source.model_id, source.revision)
        for revision in dict.fromkeys((*revisions, *((last,) if last else ()))):
            cached = self._at(version, source, revision)
            for file in self._list_cached(source.model_id, revision, cached.files()):
                files[file.path] = file
            joined = cached.joined
            for path in (joined, joined.with_name(f".{joined.name}.partial")):
                if path.is_file():
                    files[path] = CachedFile(path, path, self._joined)
        return tuple(files.values())

    def delete_cached(self, version: ModelVersion, source: Source) -> int:
        freed = delete(self._exclusive_files(version, source))
        self._delete_metadata(source.model_id)
        return freed

    def _exclusive_files(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        """The version's cached files, without projectors that another cached quantization uses."""
        files = self.list_cached(version, source)
        others = (q for q in version.spec.quantizations if q != version.quantization)
        if source.projectors and any(
            self.find_cached(structs.replace(version, quantization=q), source) for q in others
        ):
            shared = tuple(f"/{name}" for name in source.projectors)
            return tuple(file for file in files if not file.path.as_posix().endswith(shared))
        return files

    def _has_folder(self, source: Source) -> bool:
        """Whether anything of a repository may be cached. Asked for each of thousands of sources, so it is cheap."""
        check_source(source)
        model_id = source.model_id
        name = model_id.replace("/", "--")
        folders = (f"{self._joined}/{name}", *self._cache_folders(model_id))
        return any(isdir(folder) for folder in folders)  # noqa: PTH112 -- a `Path` takes longer than the call

    def _at(self, version: ModelVersion, source: Source, revision: str) -> CachedVersion:
        """The version's files at a revision, as they are on this machine."""
        return CachedVersion(
            version,
            source,
            self._stored_listing(source.model_id, revision),
            self._folder(source.model_id, revision),
            self._joined / source.model_id.replace("/", "--") / revision.replace("/", "--"),
        )
