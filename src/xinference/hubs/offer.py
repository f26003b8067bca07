"""Complete cached files that this machine offers to other machines, and the way in which others get them."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import structs

from xinference.hubs.listing import ListedFile, Listing
from xinference.hubs.transfer.parallel import Report

log = logging.getLogger(__name__)
_CHUNK = 1 << 20
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Copy = Callable[[ListedFile, Path, Report, threading.Event], None]
"""Appends to a partial file, which may exist, until it is the listed file, verified. Called for several files at once.

Raises:
    Problem: ``peer_copy_failed``: no peer can give the rest; the partial file has what arrived.
    Stopped, OSError.
"""


@dataclass(frozen=True)
class Offer:
    """The files of one version on this machine, at one revision."""

    listing: Listing
    """The repository's list, as far as this machine knows it."""
    files: Mapping[str, Path]
    """The version's files by their names in the list: real paths, inside a cache."""

    @property
    def digest(self) -> str:
        """Identifies the content: the revision with the names, sizes and hashes of the version's files."""
        chosen = tuple(file for file in self.listing.files if file.name in self.files)
        return hashlib.sha256(msgspec.json.encode(Listing(self.listing.revision, chosen))).hexdigest()


def offer_of(listing: Listing, chosen: Iterable[ListedFile], folder: Path, roots: Sequence[Path]) -> Offer | None:
    """The offer of the chosen files in `folder`; None: one of them is not complete, or not inside any of `roots`.

    Reads the files whose hashes the list does not have. Blocks.
    """
    chosen = tuple(chosen)
    if not are_inside((folder / file.name for file in chosen), roots, "other machines do not get it"):
        return None
    files: dict[str, Path] = {}
    hashed: dict[str, ListedFile] = {}
    for file in chosen:
        path = (folder / file.name).resolve()
        try:
            if path.stat().st_size != file.size or not path.is_file():
                return None
            hashed[file.name] = _with_hash(file, path)
        except OSError:
            return None
        files[file.name] = path
    return Offer(structs.replace(listing, files=tuple(hashed.get(f.name, f) for f in listing.files)), files)


def are_inside(paths: Iterable[Path], roots: Sequence[Path], consequence: str) -> bool:
    """Whether no path leaves the folders `roots` by a link; if one does, `consequence` is logged."""
    real_roots = [root.resolve() for root in roots]
    for path in paths:
        real = path.resolve()
        if not any(real.is_relative_to(root) for root in real_roots):
            log.warning("%s is a link to %s, out of its cache: %s", path, real, consequence)
            return False
    return True


def _with_hash(file: ListedFile, path: Path) -> ListedFile:
    if file.sha256 or file.git_sha1:
        return file
    if _HASH.fullmatch(path.name):  # a blob of Hugging Face's cache is named by its hash
        return structs.replace(file, **{"sha256" if len(path.name) == 64 else "git_sha1": path.name})
    status = path.stat()
    return structs.replace(file, sha256=_sha256(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=4096)
def _sha256(path: Path, _size: int, _changed: int) -> str:
    """The hash of a file; computed once while size and time stay the same."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
