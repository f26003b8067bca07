"""What is in the caches, version by version, and how a version is removed. Blocking; opens no connection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.catalog.models import ModelFamily, ModelVersion, Source
from xinference.config import Settings
from xinference.errors import Problem, near, not_found
from xinference.hubs.base import Hub
from xinference.hubs.cached_files import KeptFile, delete, total_size

_CONVERSION = re.compile(r"\.?(?P<version>.+)-[0-9a-f]{12}\.gguf(?:\.partial|\.unsynced)?")


@dataclass(frozen=True)
class CachedVersion:
    """One version as one hub brought it, wholly or partly."""

    version: ModelVersion
    source: Source | None
    """None: only a conversion is left, or it was made of a file that the user gave."""
    path: Path
    """What an engine is given: the file or the folder, even if it is not whole."""
    complete: bool
    """A launch has nothing to fetch."""
    files: tuple[KeptFile, ...]
    """Everything that belongs to it, conversions too."""

    @property
    def size_bytes(self) -> int:
        return total_size(self.files)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in ``GET /v1/cache/models``."""
        spec = self.version.spec
        return {
            "model_name": self.version.family.model_name,
            "model_size_in_billions": spec.model_size_in_billions,
            "model_format": spec.model_format,
            "quantization": self.version.quantization,
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
    """Who needs what is in a cache."""

    who: str
    """Such as ``the model llama``."""
    version_id: str | None
    """The version whose files it fetched or is fetching; None: the files were given by the user."""
    path: Path | None
    """The file or folder that its engine has, once that is known."""


def cached_versions(
    families: Iterable[ModelFamily], hubs: Mapping[str, Hub], settings: Settings
) -> list[CachedVersion]:
    """Every version of the families that is here, wholly or partly, in the families' order; one entry a hub."""
    conversions = _conversions(settings.cache_dir / "converted")
    found: list[CachedVersion] = []
    for version in versions_of(families):
        made = conversions.pop(version.version_id, ())
        for source in version.spec.sources:
            hub = hubs.get(source.hub)
            if hub is None or not source.has(version.quantization):
                continue
            if kept := hub.kept(version, source):
                whole = hub.cached(version, source)
                path = whole or _place(version, source, kept)
                found.append(CachedVersion(version, source, path, whole is not None, (*kept, *made)))
                made = ()
        if made:
            found.append(CachedVersion(version, None, made[0].path, False, made))
    return found


def find(found: Sequence[CachedVersion], version_id: str) -> list[CachedVersion]:
    """The entries of one version.

    Raises:
        Problem: 404 ``not_cached``, with the near ones.
    """
    entries = [entry for entry in found if entry.version.version_id == version_id]
    if entries:
        return entries
    there = list(dict.fromkeys(entry.version.version_id for entry in found))
    close = near(version_id, there)
    raise not_found(
        f"{version_id} is not in the cache.",
        hint=f"Did you mean {' or '.join(close)}?" if close else "`xinference cached` lists what is.",
        code="not_cached",
    )


def sharing(found: Sequence[CachedVersion], entries: Sequence[CachedVersion]) -> list[str]:
    """The versions that lose files when these entries do, such as another way to load the same folder."""
    gone = {path for entry in entries for path in _deleted(entry.files)}
    ids = {entry.version.version_id for entry in entries}
    others = (e.version.version_id for e in found if not gone.isdisjoint(_deleted(e.files)))
    return [version_id for version_id in dict.fromkeys(others) if version_id not in ids]


def remove(found: Sequence[CachedVersion], version_id: str, hubs: Mapping[str, Hub], uses: Iterable[CacheUse]) -> int:
    """Delete a version's files, of every hub, and its conversions; returns the bytes that this frees.

    Raises:
        Problem: 404 ``not_cached``; 409 ``in_use``, naming who uses it; ``outside_cache``, ``cannot_delete``.
    """
    entries = find(found, version_id)
    affected = {version_id, *sharing(found, entries)}
    gone = {path.resolve() for entry in entries for path in _deleted(entry.files)}
    for use in uses:
        if use.version_id in affected or (use.path is not None and _reaches(use.path.resolve(), gone)):
            raise Problem(
                "in_use",
                409,
                f"{version_id} is in use by {use.who}.",
                hint="End that first: `xinference terminate` a model, cancel a download.",
            )
    freed = delete(file for entry in entries for file in entry.files if file.root.name == "converted")
    return freed + sum(hubs[e.source.hub].forget(e.version, e.source) for e in entries if e.source)


def versions_of(families: Iterable[ModelFamily]) -> Iterator[ModelVersion]:
    """Every version of the families, in their order."""
    for family in families:
        for spec in family.model_specs:
            for quantization in spec.quantizations:
                yield ModelVersion(family=family, spec=spec, quantization=quantization)


def _conversions(folder: Path) -> dict[str, tuple[KeptFile, ...]]:
    """Version -> the GGUF files that were made for it, and what a broken run left."""
    made: dict[str, tuple[KeptFile, ...]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := _CONVERSION.fullmatch(path.name):
            made[match["version"]] = (*made.get(match["version"], ()), KeptFile(path, path, folder))
    return made


def _place(version: ModelVersion, source: Source, kept: Sequence[KeptFile]) -> Path:
    """Where a version that is not whole comes to be."""
    return kept[0].path if source.file_name(version.quantization) else kept[0].path.parent


def _deleted(files: Iterable[KeptFile]) -> set[Path]:
    return {path for file in files for path in ([file.path] if file.shared else [file.path, file.data])}


def _reaches(path: Path, gone: Iterable[Path]) -> bool:
    """Whether an engine that has `path`, a file or a folder, has one of the files."""
    return any(each.is_relative_to(path) for each in gone)
