"""One version's files at one revision, as far as they are in the caches of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xinference.catalog.models import ModelVersion, Source
from xinference.errors import Problem
from xinference.hubs.completeness import is_whole_file, is_whole_folder
from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.selection import choose_files, joined_name, must_join, wanted_names


@dataclass(frozen=True)
class CachedVersion:
    """Where the files of a version are if they are cached, and which of them belong to it."""

    version: ModelVersion
    source: Source
    listing: Listing | None
    """The hub's file list at the revision; None: it is not stored here."""
    folder: Path
    """The folder with the repository's files at the revision."""
    joined_folder: Path
    """The folder with the files that are joined from parts of the repository."""

    @property
    def joined(self) -> Path:
        """The file that is joined from the version's parts."""
        return self.joined_folder / joined_name(self.version, self.source)

    def find(self) -> Path | None:
        """The path of the complete files: one file, or a folder."""
        names = wanted_names(self.version, self.source)
        if self.listing is None:
            return self._find_unlisted(names)
        try:
            files = choose_files(self.version, self.source, self.listing.files)
        except Problem:  # the hub does not have the version at this revision
            return None
        if names is not None and must_join(names):
            return self.joined if has_size(self.joined, sum(file.size for file in files)) else None
        if not all(has_size(self.folder / file.name, file.size) for file in files):
            return None
        return self.folder if names is None else self.folder / names[0]

    def files(self) -> tuple[ListedFile, ...]:
        """The version's files according to the list, or to the files in the folder."""
        listed = self.listing.files if self.listing is not None else _files_in(self.folder)
        names = wanted_names(self.version, self.source)
        if names is not None:
            by_name = {file.name: file for file in listed}
            return tuple(by_name[name] for name in (*names, *self.source.projectors) if name in by_name)
        try:
            return choose_files(self.version, self.source, listed)
        except Problem:  # not the folder of a model
            return ()

    def _find_unlisted(self, names: tuple[str, ...] | None) -> Path | None:
        """Weights from another tool, if they are complete by their own headers and indexes."""
        folder, source = self.folder, self.source
        if names is None:
            return folder if is_whole_folder(folder) else None
        if must_join(names):
            return None  # the number of parts is unknown; a fetch gets the list and joins them
        facts = source.facts.get(self.version.quantization)
        if facts is not None and facts.size is not None and not has_size(folder / names[0], facts.size):
            return None
        projectors = source.projectors if len(source.projectors) == 1 else ()
        return folder / names[0] if all(is_whole_file(folder / name) for name in (*names, *projectors)) else None


def has_size(path: Path, size: int) -> bool:
    """Whether a file of this size exists."""
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def _files_in(folder: Path) -> tuple[ListedFile, ...]:
    """A file list from the content of a folder that another tool fetched."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return tuple(ListedFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)
