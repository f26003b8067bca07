"""Weights whose registration has their path on this machine: nothing is downloaded or deleted."""

from __future__ import annotations

import threading
from pathlib import Path

from xinference.catalog.models import HubName, ModelVersion, Source
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.progress import Progress
from xinference.hubs.base import FetchPreview, RemoteFile
from xinference.hubs.cached_files import CachedFile
from xinference.hubs.listing import Listing
from xinference.hubs.local_files import resolve_local
from xinference.hubs.offer import Copy, Offer
from xinference.hubs.selection import must_join, wanted_names


class LocalFolderHub:
    """A `Hub` whose model ids are paths: the file, or the folder with the files."""

    @property
    def name(self) -> HubName:
        return "local"

    def files(self, version: ModelVersion, source: Source) -> list[RemoteFile]:
        path = _find(version, source)
        return [RemoteFile(path.name, path.stat().st_size if path.is_file() else None)]

    def preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        """The path, for which no space is needed: nothing is fetched."""
        return FetchPreview(tuple(self.files(version, source)), {})

    def fetch(self, version: ModelVersion, source: Source, progress: Progress, cancelled: threading.Event) -> Path:
        """The path, if it exists. Nothing is fetched."""
        return _find(version, source)

    def find_cached(self, version: ModelVersion, source: Source) -> Path | None:
        try:
            return _find(version, source)
        except Problem:
            return None

    def offer(self, version: ModelVersion, source: Source) -> Offer | None:
        """None: a path is that of its machine."""
        return None

    def receive(
        self,
        version: ModelVersion,
        source: Source,
        listing: Listing,
        copy: Copy,
        progress: Progress,
        cancelled: threading.Event,
    ) -> Path:
        """The path, if it exists. Nothing is copied."""
        return _find(version, source)

    def may_have_cached(self, source: Source) -> bool:
        return False

    def list_cached(self, version: ModelVersion, source: Source) -> tuple[CachedFile, ...]:
        """Empty: the files are the user's."""
        return ()

    def delete_cached(self, version: ModelVersion, source: Source) -> int:
        """Delete nothing: the files are the user's."""
        return 0


def _find(version: ModelVersion, source: Source) -> Path:
    """The path of the weights. Raises `Problem` 400, which names the path."""
    path, names = Path(source.model_id), wanted_names(version, source)
    if names and not path.is_file():
        if must_join(names):
            raise Problem(
                Code.MODEL_PATH_NOT_FOUND,
                f"{version.version_id} is in parts in {path} ({', '.join(names)}), which no engine reads one by one.",
                hint="Join them into one file, such as with `cat`, and register that.",
            )
        path = path / names[0]
    try:
        return resolve_local(str(path), version.spec.model_format, version.quantization)
    except Problem as problem:
        cause = problem.cause.replace("`--model-path`", f"model_uri of {version.family.model_name}")
        hint = "Put the weights there, or register the model again with the right model_uri."
        raise problem.replace(cause=cause, hint=hint) from None
