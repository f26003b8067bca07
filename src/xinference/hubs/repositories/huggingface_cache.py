"""The layout of Hugging Face's cache, read without its library, whose import is slow.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Blobs are named by their hash, a snapshot's
files are links to them, and a ref names the commit of a branch or tag.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from xinference.files.small_file import read_small, read_small_text
from xinference.hubs.cached_files import CachedFile, remove_empty
from xinference.hubs.listing import MAX_LIST_BYTES, ListedFile, Listing

DEFAULT_BRANCH = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def cache_folder() -> Path:
    """The cache folder, by the library's own variables: HF_HUB_CACHE, else HF_HOME, else XDG_CACHE_HOME."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    folder = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return _expanded(os.path.expandvars(folder), os.environ.get("HOME")).absolute()


@lru_cache(maxsize=2)
def _expanded(folder: str, home: str | None) -> Path:
    """`folder` without ``~``, which means `home`; a list of the cache asks for it thousands of times."""
    return Path(folder).expanduser()


def is_commit(revision: str) -> bool:
    """Whether a revision is the id of a commit."""
    return _COMMIT.fullmatch(revision) is not None


class RepositoryCache:
    """One repository's folder in the cache."""

    def __init__(self, model_id: str, folder: Path) -> None:
        """`folder` is that of all repositories."""
        name = f"models--{model_id.replace('/', '--')}"
        self._folder = folder
        self._root = folder / name
        self._locks = folder / ".locks" / name

    def snapshot(self, commit: str) -> Path:
        return self._root / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        return self._root / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """The partial file of a blob. The library's own partial files have random names and are never resumed."""
        return self._root / "blobs" / f"{etag}.incomplete"

    def lock(self, etag: str) -> Path:
        """The file that the library locks while it writes a blob."""
        return self._locks / f"{etag}.lock"

    def commit(self, revision: str | None) -> str | None:
        """The commit that a revision (None: the default branch) referred to when it was last requested."""
        if revision is not None and is_commit(revision):
            return revision
        try:
            commit = read_small_text(self._root / "refs" / (revision or DEFAULT_BRANCH)).strip()
        except OSError:
            return None
        return commit if is_commit(commit) else None

    def set_commit(self, revision: str | None, commit: str) -> None:
        """Store the commit of a revision."""
        revision = revision or DEFAULT_BRANCH
        if revision == commit:
            return
        ref = self._root / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        partial = ref.with_name(f".{ref.name}.{os.getpid()}")
        partial.write_text(commit)
        partial.replace(ref)

    def link(self, commit: str, name: str, etag: str) -> None:
        """Link a blob into a snapshot under its own name."""
        pointer, blob = self.snapshot(commit) / name, self.blob(etag)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if pointer.exists() and pointer.samefile(blob):
            return
        pointer.unlink(missing_ok=True)
        try:
            with contextlib.suppress(FileExistsError):  # another process linked it
                pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a disk without links: move the file, as the library does
            blob.replace(pointer)

    def list_cached(self, commit: str, files: Mapping[str, str | None]) -> list[CachedFile]:
        """The cached files among a commit's `files` (name -> hash, if known): links to blobs, and partial files.

        A blob that another link uses is `shared`.
        """
        pointers = {name: self.snapshot(commit) / name for name in files}
        existing = {name: pointer for name, pointer in pointers.items() if os.path.lexists(pointer)}
        unlinked = [self._files_without_link(etag) for etag in files.values() if etag and _ETAG.fullmatch(etag)]
        if not existing and not any(unlinked):
            return []
        linked = self._linked_by_others(set(existing.values()))
        cached = []
        for pointer in existing.values():
            data = pointer.resolve()
            ours = not pointer.is_symlink() or data.parent == (self._root / "blobs").resolve()
            cached.append(CachedFile(pointer, data, self._folder, shared=not ours or data in linked))
        taken = linked | {file.data for file in cached}
        return cached + [
            CachedFile(path, path, self._folder) for paths in unlinked for path in paths if path.resolve() not in taken
        ]

    def delete_stale_metadata(self) -> None:
        """Delete the refs and lists of deleted snapshots, and the folder of a repository without files.

        The library reports a cache with a ref to a missing snapshot as corrupted.
        """
        for ref in [path for path in (self._root / "refs").rglob("*") if path.is_file()]:
            if not self.snapshot(ref.read_text(errors="replace").strip()).is_dir():
                ref.unlink(missing_ok=True)
                remove_empty(ref.parent, self._root)
        for tree in (self._root / "trees").glob("*.json"):
            if not self.snapshot(tree.stem).is_dir():
                tree.unlink(missing_ok=True)
        if not any((self._root / name).exists() for name in ("snapshots", "blobs")):
            shutil.rmtree(self._root, ignore_errors=True)

    def _files_without_link(self, etag: str) -> list[Path]:
        """The blob without a link, and its partial file."""
        return [path for path in (self.blob(etag), self.partial(etag)) if path.is_file()]

    def _linked_by_others(self, pointers: set[Path]) -> set[Path]:
        """The blobs that other links use."""
        links = (path for path in (self._root / "snapshots").rglob("*") if path.is_symlink())
        return {path.resolve() for path in links if path not in pointers}

    def listing(self, commit: str) -> Listing | None:
        """The library's own list of a commit's files, which `hf download` of a whole repository stores."""
        try:
            tree = msgspec.json.decode(read_small(self._root / "trees" / f"{commit}.json", MAX_LIST_BYTES), type=_Tree)
        except (OSError, ValueError, RecursionError):
            return None
        if tree.format_version != 1:
            return None
        files = (
            ListedFile(
                name, entry.lfs_size or entry.size, entry.lfs_sha256, None if entry.lfs_sha256 else entry.blob_id
            )
            for name, entry in tree.files.items()
        )
        return Listing(commit, tuple(files))


class _TreeEntry(msgspec.Struct):
    size: int
    blob_id: str
    lfs_sha256: str | None = None
    lfs_size: int | None = None


class _Tree(msgspec.Struct):
    format_version: int
    files: dict[str, _TreeEntry]
