"""`xinference env`, without a server: environments are folders, and a lock file prevents concurrent builds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, get_args

from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.environments.environments import EnvironmentEntry, Environments
from xinference.environments.spec import Accelerator, EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request, not_found
from xinference.files.progress import Progress
from xinference.hardware.devices import read_host

Json = dict[str, Any]


class EnvironmentCommands:
    """One method for each subcommand. The name of an engine is ``ENGINE[==VERSION]``, case-insensitive."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._environments = Environments(settings or Settings.from_env())
        # Never set: an interrupted command ends its process, and with it the installer.
        self._cancelled = threading.Event()

    def entries(self) -> list[Json]:
        """Every environment that this release ships or that is installed, as JSON."""
        return [_entry(entry) for entry in self._environments.entries()]

    def install(self, name: str, hardware: str | None, progress: Progress) -> Json:
        """Install an environment unless it is installed. Raises `Problem` as `Environments.install`."""
        spec = self._spec(name, hardware)
        self._environments.install(spec, progress, self._cancelled)
        return self._describe(spec)

    def install_from(self, bundle: Path, progress: Progress) -> Json:
        """Install a bundle. Raises `Problem` as `Environments.install_from`."""
        spec, _ = self._environments.install_from(bundle, progress, self._cancelled)
        return self._describe(spec)

    def remove(self, name: str, hardware: str | None) -> Json:
        """Delete an environment, by its name or by the name of its folder; returns its description.

        Raises:
            Problem: as `Environments.remove`.
        """
        if (removed := self._environments.remove_folder(name, self._cancelled)) is not None:
            return _entry(removed)
        spec = self._spec(name, hardware, installed=True)
        was = self._describe(spec)
        self._environments.remove(spec, self._cancelled)
        return was

    def verify(self, name: str, hardware: str | None) -> Json:
        """Import the engine. Raises `Problem` as `Environments.verify`."""
        spec = self._spec(name, hardware, installed=True)
        self._environments.verify(spec, self._cancelled)
        return self._describe(spec)

    def pack(self, name: str, hardware: str | None, out: Path | None, progress: Progress) -> Path:
        """Write a bundle; by default ``<name>.tar`` in the current folder. Raises `Problem` as `Environments.pack`."""
        spec = self._spec(name, hardware)
        return self._environments.pack(spec, out or Path(f"{spec.name}.tar"), progress, self._cancelled)

    def size(self, name: str, hardware: str | None) -> tuple[str, int]:
        """The environment's name and its bytes on the disk."""
        spec = self._spec(name, hardware)
        return spec.name, self._environments.size(spec)

    def _describe(self, spec: EnvironmentSpec) -> Json:
        return next(_entry(entry) for entry in self._environments.entries() if entry.spec == spec)

    def _spec(self, name: str, hardware: str | None, *, installed: bool = False) -> EnvironmentSpec:
        """The named environment: by default the newest version of the engine, for this host's hardware.

        Raises:
            Problem: 400 ``environment_unknown``, with the existing ones.
        """
        if hardware is not None and hardware not in get_args(Accelerator):
            raise bad_request(f"{hardware!r} is not the hardware of any environment.", hint="Use cpu or cuda.")
        engine, _, version = name.partition("==")
        entries = [entry for entry in self._environments.entries() if _has_name(entry.spec.engine, engine)]
        matching = [
            entry
            for entry in entries
            if (not version or entry.spec.version == version)
            and (hardware is None or entry.spec.accelerator == hardware)
            and (not installed or entry.python is not None)
        ]
        if not matching:
            raise _unknown(name, entries or self._environments.entries(), installed)
        hardware_here = "cuda" if read_host().gpus else "cpu"
        return min(matching, key=lambda entry: entry.spec.accelerator != hardware_here).spec


def _has_name(engine: str, requested: str) -> bool:
    """Whether an environment's engine has this name. An installed one may be of an engine that is not known here."""
    known = all_engines().get(engine)
    return known.table.has_name(requested) if known else engine.lower() == requested.lower()


def _entry(entry: EnvironmentEntry) -> Json:
    return {
        "name": entry.spec.name,
        "engine": entry.spec.engine,
        "version": entry.spec.version,
        "hardware": entry.spec.accelerator,
        "installed": entry.python is not None,
        "outdated": entry.is_outdated,
        "size_bytes": entry.size_bytes,
        "path": str(entry.python.parents[1]) if entry.python else None,
    }


def _unknown(name: str, near: list[EnvironmentEntry], installed: bool) -> Problem:
    known = [entry for entry in near if entry.python] if installed else near
    names = ", ".join(f"{entry.spec.engine}=={entry.spec.version} ({entry.spec.accelerator})" for entry in known)
    return not_found(
        f"No environment for {name} {'is installed' if installed else 'exists'}.",
        hint=f"{'Installed' if installed else 'Available'}: {names or 'none'}.",
        code=Code.ENVIRONMENT_MISSING if installed else Code.ENVIRONMENT_UNKNOWN,
    )
