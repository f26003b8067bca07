"""Forecasts the memory and the disk space of launches whose weights are not on this machine yet; fetches no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from xinference.catalog.known_projectors import projector_bytes, used_projectors
from xinference.catalog.models import ModelVersion, Source
from xinference.config import Settings
from xinference.engines.base import Engine, ExtraWeightFile
from xinference.environments.environments import Environments
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.disk_space import free_bytes, nearest_existing
from xinference.hardware.devices import Host
from xinference.hubs.base import FetchPreview, Hub
from xinference.launch.forecast import DiskNeed, DiskPurpose, PlannedFiles, ShapeSource, registered_files
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch
from xinference.planning.expected_shape import expected_shape
from xinference.planning.version_size import estimated_bytes
from xinference.weights.remote_shape import read_remote_shape
from xinference.weights.shape_reader import unwritten_calls, with_extra
from xinference.work_threads import HubQuestions, LongWork

_HEADER: ShapeSource = "file header"
_ROUGH = "memory: a rough estimate from the size and the bits of the quantization"
_UNKNOWN = "memory: not known before the download, because the catalog has no size of this model"
#: Maximum time for the questions to a hub about one launch, in seconds; then the registry answers.
HEADER_SECONDS = 20.0
#: Problems of a hub that the download would have, too, or that do not concern the header: the registry answers.
_NOT_FATAL = frozenset(
    {
        Code.OFFLINE, Code.HUB_UNREACHABLE, Code.HUB_TIMEOUT, Code.HUB_BUSY, Code.HUB_UNAVAILABLE, Code.GATED_MODEL,
        Code.REPO_NOT_FOUND, Code.REVISION_NOT_FOUND, Code.FILE_NOT_FOUND, Code.PACKAGE_NOT_FOUND,
        Code.GGML_FACTS_MISSING, Code.DOWNLOAD_FAILED,
    }
)  # fmt: skip


@dataclass(frozen=True)
class ExpectedWeights:
    """The weights that a launch would download, before the download."""

    shape: ModelShape
    source: ShapeSource
    disk: tuple[DiskNeed, ...] = ()
    download_bytes: int | None = None
    """Bytes of the files that are not cached; None: the hub did not report them."""
    notes: tuple[str, ...] = ()
    files: PlannedFiles = field(default_factory=PlannedFiles)

    @property
    def are_of_unknown_size(self) -> bool:
        """Whether neither the hub nor the registry knows how large the weights are."""
        return self.source == "estimate" and not self.shape.weights_bytes


class Forecaster:
    """Reads the header of a file on its hub, or else takes the shape from the registry, or else from the size."""

    def __init__(
        self, settings: Settings, hubs: Mapping[str, Hub], engines: Mapping[str, Engine], work: LongWork
    ) -> None:
        self._settings = settings
        self._hubs = hubs
        self._engines = engines
        self._environments = Environments(settings)
        self._questions = HubQuestions(min(settings.hub_seconds, HEADER_SECONDS))
        self._files = work.files

    async def expect(self, launch: ResolvedLaunch, source: Source, host: Host) -> ExpectedWeights:
        """The expected weights of a launch from `source`.

        Raises:
            Problem: 400 ``bad_weight_file``, the header on the hub is damaged.
        """
        note, preview, shape = None, None, None
        try:
            preview = await self._questions.ask(self._preview, launch.version, source)
            shape = await self._questions.ask(read_remote_shape, preview, launch.version, source)
        except Problem as problem:
            if problem.code not in _NOT_FATAL:
                raise
            note = f"the header of the weights can't be read: {problem.cause.rstrip('.')}"
        return await self._files.run(self._with_disk, launch, source, host, preview, shape, note)

    def _preview(self, version: ModelVersion, source: Source) -> FetchPreview:
        hub = self._hubs.get(source.hub)
        if hub is None:
            raise Problem(Code.HUB_UNAVAILABLE, f"This version has no hub named {source.hub}.")
        return hub.preview(version, source)

    def _with_disk(
        self,
        launch: ResolvedLaunch,
        source: Source,
        host: Host,
        preview: FetchPreview | None,
        remote: ModelShape | None,
        note: str | None,
    ) -> ExpectedWeights:
        version = launch.version
        shape, origin, notes = (
            (remote, _HEADER, unwritten_calls(remote, version)) if remote else _without_header(version, source)
        )
        for file in self._extra_files(launch):
            shape = with_extra(shape, file)
        return ExpectedWeights(
            shape,
            origin,
            self._disk(launch, host, preview, shape),
            preview.download_bytes if preview else None,
            (*((note,) if note else ()), *notes),
            _files(launch, preview),
        )

    def _extra_files(self, launch: ResolvedLaunch) -> list[ExtraWeightFile]:
        """Further weights of the launch that are on this machine, such as a projector with its own path."""
        files = self._engines[launch.engine].extra_weight_files(launch, Path("weights"))
        return [file for file in files if file.is_own_layers or (file.path.is_absolute() and file.path.exists())]

    def _disk(
        self, launch: ResolvedLaunch, host: Host, preview: FetchPreview | None, shape: ModelShape
    ) -> tuple[DiskNeed, ...]:
        needs = [_need("download", folder, count) for folder, count in (preview.space if preview else {}).items()]
        if launch.version.spec.model_format == "ggmlv3":
            needs.append(_need("conversion", self._settings.cache_dir / "converted", shape.weights_bytes))
        spec = self._engines[launch.engine].environment(host)
        if spec is not None and self._environments.find(spec) is None:
            needs.append(_need("environment", self._settings.home / "environments", self._environments.size(spec)))
        return tuple(need for need in needs if need.needed_bytes)


def _without_header(version: ModelVersion, source: Source) -> tuple[ModelShape, ShapeSource, tuple[str, ...]]:
    shape, origin = expected_shape(version, source)
    unknown = [name for name in used_projectors(source) if projector_bytes(version, name) is None]
    notes = [f"memory: without the projector {name}, whose size is not known before the download" for name in unknown]
    if origin == "estimate":
        notes = [*notes, _ROUGH] if shape.weights_bytes else [_UNKNOWN]
    return shape, origin, tuple(notes)


def _files(launch: ResolvedLaunch, preview: FetchPreview | None) -> PlannedFiles:
    """The files by the hub's list; without it by the registry, whose sizes may be an estimate."""
    if preview is not None and preview.files:
        sizes = [file.size for file in preview.files]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        files = tuple((file.name, file.size) for file in preview.files)
        return PlannedFiles(files, total, "hub" if total is not None else None)
    files_of_registry = registered_files(launch)
    if files_of_registry.total_bytes is not None:
        return files_of_registry
    estimate = estimated_bytes(launch.version)
    return replace(files_of_registry, total_bytes=estimate, source=None if estimate is None else "estimate")


def _need(purpose: DiskPurpose, folder: Path, count: int) -> DiskNeed:
    return DiskNeed(purpose, nearest_existing(folder), count, free_bytes(folder))
