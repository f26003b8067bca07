"""The phases of a launch, each with the reasons for its choices: draft, resolved, sized. Plain values.

Each phase contains the previous one, and no field that the phase decides is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from xinference.catalog.known_projectors import (
    projector_bytes,
    projectors_bytes,
    registered_weights,
    used_projectors,
)
from xinference.catalog.models import ModelVersion, Source
from xinference.launch.place import Place, Places, place_of
from xinference.launch.request import LaunchRequest


class Sizing(msgspec.Struct, frozen=True):
    """Resources of one replica; bytes and tokens."""

    context_length: int
    """Maximum length of a prompt in every slot, in tokens."""
    slots: int
    """Maximum number of requests computed at the same time, each with the whole context."""
    weights_bytes: int
    kv_cache_bytes: int
    overhead_bytes: int
    reasons: tuple[str, ...] = ()
    tensor_parallel: int = 1
    """Devices over which every layer is split."""
    memory_fraction: float | None = None
    """Share of each device's memory, by the engine's definition; None: the engine has no such option."""
    file_pages_bytes: int = 0
    """Pages of the weight file in the page cache next to a repacked copy; the kernel reclaims them when needed."""
    later_bytes: int = 0
    """Part of cache and overhead that the engine allocates only as the contexts fill."""
    correction_bytes: int = 0
    """Part of the overhead that comes from an earlier measurement; may be negative."""
    state_bytes: int = 0
    """Maximum size of the saved states of prompts, which are files in the host's memory; written as prompts arrive."""

    @property
    def engine_bytes(self) -> int:
        """Memory of the engine's processes, on its devices."""
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes

    @property
    def total_bytes(self) -> int:
        """Memory of the engine and its saved states."""
        return self.engine_bytes + self.state_bytes

    @property
    def loaded_bytes(self) -> int:
        """Expected memory of the engine's processes when it is ready, before the first request."""
        return self.engine_bytes - self.later_bytes + self.file_pages_bytes


Devices = tuple[tuple[int, ...], ...]
"""Indices of each replica's GPUs; empty: CPU."""


@dataclass(frozen=True)
class LaunchDraft:
    """The decisions that need only the request and the host, without access to hubs or files."""

    uid: str
    request: LaunchRequest
    """The request with all default values except the hub; a draft of this request is the same draft."""
    version: ModelVersion
    engine: str
    use_gpu: bool
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Checked engine options, by the engine's own names."""
    reasons: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """The reasons that a launch shows: one line for each of size, quantization and a missing environment."""

    def with_uid(self, uid: str) -> LaunchDraft:
        """This draft for a deployment with another uid."""
        return replace(self, uid=uid, request=msgspec.structs.replace(self.request, model_uid=uid))


@dataclass(frozen=True)
class ResolvedLaunch:
    """A draft with the origin of its weights: a hub, or a file or folder of the user."""

    draft: LaunchDraft
    """The draft; its request names the hub."""
    origin: Source | Path
    options: Mapping[str, Any] = field(default_factory=dict)
    """The draft's options, and those that name further files."""
    reasons: tuple[str, ...] = ()
    """The reasons of the draft, then those of this phase."""

    @property
    def uid(self) -> str:
        return self.draft.uid

    @property
    def request(self) -> LaunchRequest:
        return self.draft.request

    @property
    def version(self) -> ModelVersion:
        return self.draft.version

    @property
    def engine(self) -> str:
        return self.draft.engine

    @property
    def use_gpu(self) -> bool:
        return self.draft.use_gpu

    @property
    def threads(self) -> int:
        return self.draft.threads

    @property
    def source(self) -> Source | None:
        """The hub's repository; None: the request names a path."""
        return None if isinstance(self.origin, Path) else self.origin

    def with_request(self, request: LaunchRequest) -> ResolvedLaunch:
        """This launch with another request: another number of replicas, or other devices."""
        return replace(self, draft=replace(self.draft, request=request))


@dataclass(frozen=True)
class SizedPlan:
    """A launch that can be started: its weights are on disk, and context, slots and devices are decided."""

    launch: ResolvedLaunch
    path: Path
    """The weight file or folder."""
    sizing: Sizing
    places: Places = ()
    """The machine and the devices of each replica."""
    notes: tuple[str, ...] = ()
    """Notes from reading the weights."""
    writes_calls: bool | None = None
    """Whether the chat template in the weights writes tool calls; None: not known."""

    @property
    def uid(self) -> str:
        return self.launch.uid

    @property
    def request(self) -> LaunchRequest:
        return self.launch.request

    @property
    def version(self) -> ModelVersion:
        return self.launch.version

    @property
    def engine(self) -> str:
        return self.launch.engine

    @property
    def use_gpu(self) -> bool:
        return self.launch.use_gpu

    @property
    def threads(self) -> int:
        return self.launch.threads

    @property
    def source(self) -> Source | None:
        return self.launch.source

    @property
    def options(self) -> Mapping[str, Any]:
        return self.launch.options

    @property
    def reasons(self) -> tuple[str, ...]:
        return (*self.launch.reasons, *self.notes, *self.sizing.reasons)

    @property
    def devices(self) -> Devices:
        """The GPUs of each replica on its node; empty if all are on the CPU."""
        return _devices_of(self.places)

    def place_of(self, position: int) -> Place:
        """The place of the replica at `position`."""
        return place_of(self.places, position)

    def devices_of(self, position: int) -> tuple[int, ...]:
        """The GPUs of the replica at `position`; empty: CPU."""
        return self.place_of(position).devices

    def with_request(self, request: LaunchRequest) -> SizedPlan:
        """This plan with another request of the same resources."""
        return replace(self, launch=self.launch.with_request(request))

    def with_replicas(self, request: LaunchRequest, places: Places) -> SizedPlan:
        """This plan with the number of replicas in `request`, at these places."""
        return replace(self, launch=self.launch.with_request(request), places=places)


ShapeSource = Literal["file header", "registry", "estimate"]
"""The source of the numbers of a model's shape: the weights' own header or configuration, on disk or on the hub; the
registry; or only the size and the bits of the quantization."""


DiskPurpose = Literal["download", "conversion", "environment"]


@dataclass(frozen=True)
class DiskNeed:
    """Disk space that a launch needs before its engine starts; bytes."""

    purpose: DiskPurpose
    folder: Path
    """An existing folder on the disk."""
    needed_bytes: int
    free_bytes: int


FileSizes = Literal["hub", "registry", "estimate"]
"""The source of the size of files: the hub's list, the registry, or an estimate."""


@dataclass(frozen=True)
class PlannedFiles:
    """The files that a launch would download."""

    files: tuple[tuple[str, int | None], ...] = ()
    """Name and bytes of each; empty: not known before the hub answers."""
    total_bytes: int | None = None
    """Bytes of all files, also of the cached ones; None: not known."""
    source: FileSizes | None = None


@dataclass(frozen=True)
class Forecast:
    """The expected resources of a launch whose weights are not on this machine yet."""

    source: ShapeSource
    sizing: Sizing | None
    """None: the estimate is too rough to choose a context."""
    places: Places = ()
    """See `SizedPlan.places`; without a sizing they are not decided."""
    disk: tuple[DiskNeed, ...] = ()
    download_bytes: int | None = None
    """Bytes of the files that are not cached; None: the hub did not report them."""
    notes: tuple[str, ...] = ()
    files: PlannedFiles = PlannedFiles()

    @property
    def devices(self) -> Devices:
        """See `SizedPlan.devices`."""
        return _devices_of(self.places)


LaunchPlan = ResolvedLaunch | SizedPlan
"""A launch that may not be sized yet."""


def plan_entry(launch: ResolvedLaunch, sized: SizedPlan | None, forecast: Forecast | None = None) -> dict[str, Any]:
    """The output of `launch --dry-run`: the sized plan, or the forecast if the weights are not on this machine."""
    source = launch.source
    sizing = sized.sizing if sized else forecast.sizing if forecast else None
    places = sized.places if sized else forecast.places if forecast else ()
    reasons = sized.reasons if sized else (*launch.reasons, *_forecast_reasons(forecast))
    path = sized.path if sized else launch.origin if source is None else None
    files = forecast.files if forecast else registered_files(launch)
    return {
        "model_uid": launch.uid,
        "version": launch.version.version_id,
        "engine": launch.engine,
        "hub": source.hub if source else "local",
        "model_id": source.model_id if source else None,
        "revision": source.revision if source else None,
        "files": [{"name": name, "size": size} for name, size in files.files],
        "files_bytes": files.total_bytes,
        "files_source": files.source,
        "path": str(path) if path else None,
        "context_length": sizing.context_length if sizing else None,
        "slots": sizing.slots if sizing else None,
        "threads": launch.threads,
        "replica": launch.request.replica,
        "devices": [list(group) for group in _devices_of(places)],
        "places": _place_entries(places, launch.request.replica) if sizing else [],
        "tensor_parallel": sizing.tensor_parallel if sizing else None,
        "memory_fraction": sizing.memory_fraction if sizing else None,
        "memory": {
            "weights": sizing.weights_bytes if sizing else None,
            "kv_cache": sizing.kv_cache_bytes if sizing else None,
            "overhead": sizing.overhead_bytes if sizing else None,
            "saved_states": sizing.state_bytes if sizing else None,
            "total": sizing.total_bytes if sizing else None,
            "loaded": sizing.loaded_bytes if sizing else None,
            "source": "file header" if sized else forecast.source if forecast else None,
        },
        "download_bytes": 0 if sized else forecast.download_bytes if forecast else None,
        "disk": [
            {
                "purpose": need.purpose,
                "folder": str(need.folder),
                "needed_bytes": need.needed_bytes,
                "free_bytes": need.free_bytes,
            }
            for need in (forecast.disk if forecast else ())
        ],
        "reasons": list(reasons),
        "options": dict(launch.options),
    }


def _devices_of(places: Places) -> Devices:
    """The GPUs of each replica; empty if all are on the CPU."""
    groups = tuple(place.devices for place in places)
    return groups if any(groups) else ()


def _place_entries(places: Places, replicas: int) -> list[dict[str, Any]]:
    """The machine and the GPUs of each rank of each replica, in the form of the API."""
    return [
        {"replica": number, "rank": rank, "node": part.node_id, "devices": list(part.devices)}
        for number in range(replicas)
        for rank, part in enumerate((place_of(places, number), *place_of(places, number).ranks))
    ]


def _forecast_reasons(forecast: Forecast | None) -> tuple[str, ...]:
    if forecast is None:
        return ()
    return (*forecast.notes, *(forecast.sizing.reasons if forecast.sizing else ()))


def registered_files(launch: ResolvedLaunch) -> PlannedFiles:
    """The files of a launch, with the sizes that the registry has."""
    source, version = launch.source, launch.version
    if source is None:
        return PlannedFiles()
    name = source.file_name(version.quantization)
    names = source.parts.get(version.quantization) or ((name,) if name else ())
    size = registered_weights(version, source)
    total = None if size is None else size + projectors_bytes(version, source)
    files = tuple((each, size if len(names) == 1 else None) for each in names)
    projectors = tuple((each, projector_bytes(version, each)) for each in used_projectors(source))
    return PlannedFiles((*files, *projectors), total, "registry" if total else None)
