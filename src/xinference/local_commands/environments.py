"""What `xinference env` does, without a server: environments are folders, and a lock file keeps builders apart."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, get_args

from xinference.config import Settings
from xinference.environments.environments import EnvironmentEntry, Environments
from xinference.environments.spec import Accelerator, EnvironmentSpec
from xinference.errors import Problem, bad_request
from xinference.files.progress import Progress
from xinference.hardware.devices import read_host

Json = dict[str, Any]


class EnvironmentCommands:
    """One method a subcommand; an engine is named as ``ENGINE[==VERSION]``, in any case."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._environments = Environments(settings or Settings.from_env())
        # An interrupted command ends its process, and with it the installer: nobody sets this.
        self._cancelled = threading.Event()

    def entries(self) -> list[Json]:
        """Every environment that is shipped or installed, as JSON."""
        return [_entry(entry) for entry in self._environments.entries()]

    def install(self, name: str, hardware: str | None, progress: Progress) -> Json:
        """Install it unless it is there. Raises `Problem` as `Environments.install`."""
        spec = self._spec(name, hardware)
        self._environments.install(spec, progress, self._cancelled)
        return self._described(spec)

    def install_from(self, bundle: Path, progress: Progress) -> Json:
        """Install a bundle. Raises `Problem` as `Environments.install_from`."""
        spec, _ = self._environments.install_from(bundle, progress, self._cancelled)
        return self._described(spec)

    def remove(self, name: str, hardware: str | None) -> Json:
        """Delete it; what it was. Raises `Problem` as `Environments.remove`."""
        spec = self._spec(name, hardware, installed=True)
        was = self._described(spec)
        self._environments.remove(spec, self._cancelled)
        return was

    def verify(self, name: str, hardware: str | None) -> Json:
        """Import the engine. Raises `Problem` as `Environments.verify`."""
        spec = self._spec(name, hardware, installed=True)
        self._environments.verify(spec, self._cancelled)
        return self._described(spec)

    def pack(self, name: str, hardware: str | None, out: Path | None, progress: Progress) -> Path:
        """Write a bundle; by default ``<name>.tar`` here. Raises `Problem` as `Environments.pack`."""
        spec = self._spec(name, hardware)
        return self._environments.pack(spec, out or Path(f"{spec.name}.tar"), progress, self._cancelled)

    def size(self, name: str, hardware: str | None) -> tuple[str, int]:
        """What it is called and the bytes that it takes on the disk."""
        spec = self._spec(name, hardware)
        return spec.name, self._environments.size(spec)

    def _described(self, spec: EnvironmentSpec) -> Json:
        return next(_entry(entry) for entry in self._environments.entries() if entry.spec == spec)

    def _spec(self, name: str, hardware: str | None, *, installed: bool = False) -> EnvironmentSpec:
        """The one that is meant: the newest of an engine, for the hardware that this host has.

        Raises:
            Problem: 400 ``environment_unknown``, with what there is.
        """
        if hardware is not None and hardware not in get_args(Accelerator):
            raise bad_request(f"{hardware!r} is not hardware that there are environments for.", hint="cpu or cuda.")
        engine, _, version = name.partition("==")
        entries = [entry for entry in self._environments.entries() if entry.spec.engine.lower() == engine.lower()]
        matching = [
            entry
            for entry in entries
            if (not version or entry.spec.version == version)
            and (hardware is None or entry.spec.accelerator == hardware)
            and (not installed or entry.python is not None)
        ]
        if not matching:
            raise _unknown(name, entries or self._environments.entries(), installed)
        here = "cuda" if read_host().gpus else "cpu"
        return min(matching, key=lambda entry: entry.spec.accelerator != here).spec


def _entry(entry: EnvironmentEntry) -> Json:
    return {
        "name": entry.spec.name,
        "engine": entry.spec.engine,
        "version": entry.spec.version,
        "hardware": entry.spec.accelerator,
        "installed": entry.python is not None,
        "size_bytes": entry.size_bytes,
        "path": str(entry.python.parents[1]) if entry.python else None,
    }


def _unknown(name: str, near: list[EnvironmentEntry], installed: bool) -> Problem:
    known = [entry for entry in near if entry.python] if installed else near
    there = ", ".join(f"{entry.spec.engine}=={entry.spec.version} ({entry.spec.accelerator})" for entry in known)
    return bad_request(
        f"No environment {'is installed' if installed else 'is known'} for {name}.",
        hint=f"{'Installed' if installed else 'Known'}: {there or 'none'}.",
        code="environment_missing" if installed else "environment_unknown",
    )
