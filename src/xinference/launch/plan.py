"""The phases of a launch, each with the reasons for its choices: draft, resolved, sized. Plain values.

Each phase contains the previous one, and no field that the phase decides is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

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
        return replica_devices(self.places)

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


LaunchPlan = ResolvedLaunch | SizedPlan
"""A launch that may not be sized yet."""


def replica_devices(places: Places) -> Devices:
    """The GPUs of each replica; empty if all are on the CPU."""
    groups = tuple(place.devices for place in places)
    return groups if any(groups) else ()
