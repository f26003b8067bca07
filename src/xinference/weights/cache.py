"""Lists and removes the cached versions. Blocking; opens no connection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelSpec, ModelVersion, Source
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import join_names, near, not_found, weights_in_use
from xinference.hubs.base import Hub
from xinference.hubs.cached_files import CachedFile, delete, total_size

_CONVERSION = re.compile(r"\.?(?P<version>.+)-[0-9a-f]{12}\.gguf(?:\.partial|\.unsynced)?")


@dataclass(frozen=True)
class CachedVersion:
    """One version in the cache of one hub, complete or partial."""

    version: ModelVersion
    source: Source | None
    """None: only a conversion is cached, or the conversion of a file that the user passed."""
    path: Path
    """The path for an engine: the file or the folder, even if it is incomplete."""
    complete: bool
    """Whether a launch can start without fetching files."""
    files: tuple[CachedFile, ...]
    """All files that belong to the version, conversions included."""

    @property
    def size_bytes(self) -> int:
        return total_size(self.files)

    def to_dict(self) -> dict[str, Any]:
        """The version's entry in ``GET /v1/cache/models``."""
        return {
            **self.version.to_dict(),
            "model_version": self.version.version_id,
            "path": str(self.path),
            "real_path": str(self.path.resolve()),
            "actor_ip_address": None,
            "hub": self.source.hub if self.source else None,
            "model_id": self.source.model_id if self.source else None,
            "size_bytes": self.size_bytes,
            "complete": self.complete,
        }


@dataclass(frozen=True)
class CacheUse:
    """A model or download that uses files in a cache."""

    user: str
    """The name of the model or download in messages, such as ``the model llama``."""
    version_id: str | None
    """The version whose files it has fetched or is fetching; None: the files are the user's."""
    path: Path | None
    """The file or folder that its engine has loaded; None: not known yet."""


def cached_versions(
    families: Iterable[ModelFamily], hubs: Mapping[str, Hub], settings: Settings
) -> list[CachedVersion]:
    """Every cached version of the families, complete or partial, in the families' order; one entry for each hub."""
    conversions = _conversions(settings.cache_dir / "converted")
    versions: list[CachedVersion] = []
    spec: ModelSpec | None = None
    sources: list[tuple[Source, Hub]] = []
    for version in versions_of(families):
        if version.spec is not spec:
            spec, sources = version.spec, _cached_sources(version.spec, hubs)
        converted = conversions.pop(version.version_id, ()) if conversions else ()
        for source, hub in sources:
            if not source.has(version.quantization):
                continue
            if cached_files := hub.list_cached(version, source):
                complete = hub.find_cached(version, source)
                path = complete or _partial_path(version, source, cached_files)
                versions.append(CachedVersion(version, source, path, complete is not None, (*cached_files, *converted)))
                converted = ()
        if converted:
            versions.append(CachedVersion(version, None, converted[0].path, False, converted))
    return versions


def _cached_sources(spec: ModelSpec, hubs: Mapping[str, Hub]) -> list[tuple[Source, Hub]]:
    """The sources of which something may be cached, with their hubs: none for nearly every spec."""
    known = ((source, hubs.get(source.hub)) for source in spec.sources)
    return [(source, hub) for source, hub in known if hub is not None and hub.may_have_cached(source)]


def find_version(versions: Sequence[CachedVersion], version_id: str) -> list[CachedVersion]:
    """The entries of one version.

    Raises:
        Problem: 404 ``not_cached``, with similar names.
    """
    entries = [entry for entry in versions if entry.version.version_id == version_id]
    if entries:
        return entries
    cached = list(dict.fromkeys(entry.version.version_id for entry in versions))
    close = near(version_id, cached)
    raise not_found(
        f"{version_id} is not in the cache.",
        hint=f"Did you mean {join_names(close)}?" if close else "`xinference cached` lists the cached versions.",
        code=Code.NOT_CACHED,
    )


def find_sharing(versions: Sequence[CachedVersion], entries: Sequence[CachedVersion]) -> list[str]:
    """The versions that also use files of these entries, such as another quantization at load of the same folder."""
    deleted = {path for entry in entries for path in _deleted_paths(entry.files)}
    ids = {entry.version.version_id for entry in entries}
    others = (e.version.version_id for e in versions if not deleted.isdisjoint(_deleted_paths(e.files)))
    return [version_id for version_id in dict.fromkeys(others) if version_id not in ids]


def remove(
    versions: Sequence[CachedVersion], version_id: str, hubs: Mapping[str, Hub], uses: Iterable[CacheUse]
) -> int:
    """Delete a version's files in every hub's cache, and its conversions; returns the freed bytes.

    Raises:
        Problem: 404 ``not_cached``; 409 ``in_use``, which names the model; ``outside_cache``, ``cannot_delete``.
    """
    entries = find_version(versions, version_id)
    if found := users(versions, entries, uses):
        raise weights_in_use(version_id, found)
    freed = delete(file for entry in entries for file in entry.files if file.root.name == "converted")
    return freed + sum(hubs[e.source.hub].delete_cached(e.version, e.source) for e in entries if e.source)


def users(versions: Sequence[CachedVersion], entries: Sequence[CachedVersion], uses: Iterable[CacheUse]) -> list[str]:
    """The models and downloads that use files of these entries, which belong to one version."""
    affected = {*(entry.version.version_id for entry in entries), *find_sharing(versions, entries)}
    deleted = {path.resolve() for entry in entries for path in _deleted_paths(entry.files)}
    return [
        use.user
        for use in uses
        if use.version_id in affected or (use.path is not None and _contains_any(use.path.resolve(), deleted))
    ]


def versions_of(families: Iterable[ModelFamily]) -> Iterator[ModelVersion]:
    """Every version of the families, in order."""
    for family in families:
        for spec in family.model_specs:
            for quantization in spec.quantizations:
                yield ModelVersion(family=family, spec=spec, quantization=quantization)


def _conversions(folder: Path) -> dict[str, tuple[CachedFile, ...]]:
    """Version -> the GGUF files converted for it, with the partial files of interrupted runs."""
    converted: dict[str, tuple[CachedFile, ...]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _CONVERSION.fullmatch(path.name):
            converted[match["version"]] = (*converted.get(match["version"], ()), CachedFile(path, path, folder))
    return converted


def _partial_path(version: ModelVersion, source: Source, cached_files: Sequence[CachedFile]) -> Path:
    """The path that an incomplete version will have."""
    return cached_files[0].path if source.file_name(version.quantization) else cached_files[0].path.parent


def _deleted_paths(files: Iterable[CachedFile]) -> set[Path]:
    return {path for file in files for path in ([file.path] if file.shared else [file.path, file.data])}


def _contains_any(path: Path, deleted: Iterable[Path]) -> bool:
    """Whether `path`, a file or a folder, is or contains one of the deleted files."""
    return any(each.is_relative_to(path) for each in deleted)
