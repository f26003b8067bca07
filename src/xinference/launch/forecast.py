"""What a launch is expected to need before its weights are on this machine: memory, disk and files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xinference.catalog.known_projectors import (
    projector_bytes,
    projectors_bytes,
    registered_weights,
    used_projectors,
)
from xinference.launch.place import Places
from xinference.launch.plan import Devices, ResolvedLaunch, Sizing, replica_devices

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
        return replica_devices(self.places)


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
