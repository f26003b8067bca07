"""The file list of a repository at one revision, and its copy on this machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from xinference.catalog.models import Source
from xinference.catalog.safe_names import is_inside
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.small_file import read_small, read_small_text

#: An owner and a name, as on Hugging Face and ModelScope; a match is safe as part of a path or a URL.
_MODEL_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w.+-]*(?:/[A-Za-z0-9_][\w.+-]*)*", re.ASCII)


#: A stored list is not larger.
MAX_LIST_BYTES = 64 << 20
#: No file is larger.
MAX_FILE_BYTES = 1 << 60


class ListedFile(msgspec.Struct, frozen=True):
    """One file of a repository."""

    name: str
    """Path inside the repository, as the hub reports it: not trusted before `is_inside` has checked it."""
    size: int
    """Bytes."""
    sha256: str | None = None
    """Lower-case hex; None: the hub does not report it."""
    git_sha1: str | None = None
    """Git's object id of a file that is not stored in LFS."""


class Listing(msgspec.Struct, frozen=True):
    """All files of a repository at one revision."""

    revision: str
    """The name of the cache's folder: a commit on Hugging Face, a branch or tag on ModelScope."""
    files: tuple[ListedFile, ...]
    is_whole: bool = True
    """False: it has only the files of one version, so it is not stored."""


def is_listed(file: ListedFile) -> bool:
    """Whether the values of a file have their types: the hub's answer may have others."""
    return isinstance(file.name, str) and type(file.size) is int and 0 <= file.size < MAX_FILE_BYTES


def check_source(source: Source) -> None:
    """Refuse an entry whose path could be outside the cache folder; it may come from a user's registration.

    Raises:
        Problem: 400 ``bad_source``.
    """
    names = [*source.parts, *(part for parts in source.parts.values() for part in parts)]
    if source.file is not None:
        names.append(source.file)
    for what, value, good in (
        ("model_id", source.model_id, _MODEL_ID.fullmatch(source.model_id) and ".." not in source.model_id),
        ("revision", source.revision, source.revision is None or _is_revision(source.revision)),
        *(("file", name, is_inside(name)) for name in names),
    ):
        if not good:
            raise Problem(
                Code.BAD_SOURCE,
                f"The {source.hub} source {source.model_id!r} is invalid: its {what} is {value!r}.",
                hint="Correct the model's registration.",
            )


def _is_revision(revision: str) -> bool:
    return _REVISION.fullmatch(revision) is not None and ".." not in revision


class Listings:
    """The stored file lists of fetched repositories; offline, a list shows whether a folder is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, model_id: str, revision: str) -> Listing | None:
        """The stored list, or None if there is none or it is damaged."""
        try:
            return msgspec.json.decode(read_small(self._path(model_id, revision), MAX_LIST_BYTES), type=Listing)
        except (OSError, ValueError, RecursionError):
            return None

    def save(self, model_id: str, listing: Listing, requested: str | None) -> None:
        """Store a list, replacing an earlier one, as the list of the `requested` revision (None: the default)."""
        self._write(self._path(model_id, listing.revision), msgspec.json.format(msgspec.json.encode(listing)))
        self._write(self._requested_path(model_id, requested), listing.revision.encode())

    def last_revision(self, model_id: str, requested: str | None) -> str | None:
        """The revision that was last fetched for the name `requested`, completely or in part."""
        try:
            revision = read_small_text(self._requested_path(model_id, requested))
        except OSError:
            return None
        return revision if _is_revision(revision) else None

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(data)
        partial.replace(path)

    def _requested_path(self, model_id: str, requested: str | None) -> Path:
        folder = self._folder / model_id.replace("/", "--") / "begun"
        # No revision begins with "+".
        return folder / requested.replace("/", "--") if requested else folder / "+default"

    def _path(self, model_id: str, revision: str) -> Path:
        return self._folder / model_id.replace("/", "--") / f"{revision.replace('/', '--')}.json"
