"""Manages the folder of built environments: finds complete ones, deletes incomplete ones, detects use."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import msgspec
import psutil

from xinference.environments.cache_growth import folder_bytes
from xinference.environments.lock import Lock, parse_lock
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.locks import locked
from xinference.files.small_file import read_small, read_small_text

#: Written last: a folder with this file is complete.
MARKER = "environment.json"
_RECIPE, _REQUIREMENTS = "environment.toml", "requirements.txt"
_BUILDING, _REMOVING = ".building-", ".removing-"


class Marker(msgspec.Struct, frozen=True):
    """Facts about a complete environment."""

    size_bytes: int
    seconds: float
    """Duration of the build."""


@dataclass(frozen=True)
class InstalledEnvironment:
    """A complete environment."""

    lock: Lock
    folder: Path
    marker: Marker

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


class EnvironmentFolder:
    """``<home>/environments``: a folder for each environment, named by its content, and a lock for each name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, folder_name: str) -> InstalledEnvironment | None:
        """A complete environment; None also if its base Python no longer exists."""
        folder = self.root / folder_name
        try:
            marker = msgspec.json.decode(read_small(folder / MARKER), type=Marker)
            lock = parse_lock(read_small_text(folder / _RECIPE), read_small_text(folder / _REQUIREMENTS), folder_name)
        except (OSError, ValueError, RecursionError, Problem):
            return None
        installed = InstalledEnvironment(lock, folder, marker)
        return installed if installed.python.exists() else None

    def all(self) -> list[InstalledEnvironment]:
        """Every complete environment, by name."""
        names = sorted(path.name for path in self.root.glob("[!.]*"))
        return [installed for name in names if (installed := self.find(name))]

    @contextlib.contextmanager
    def build_folder(self, lock: Lock, cancelled: Event) -> Iterator[Path]:
        """An empty folder for a build, locked for this process; deleted with its content afterwards.

        Raises:
            Problem: 499 ``cancelled`` while another process builds the same environment.
        """
        with self._locked(lock.folder_name, cancelled):
            self._clear_leftovers()
            workspace = self.root / f"{_BUILDING}{lock.folder_name}"
            _delete(workspace)  # the folder of a killed build
            workspace.mkdir(parents=True)
            try:
                yield workspace
            finally:
                _delete(workspace)

    def put(self, lock: Lock, built: Path, seconds: float) -> InstalledEnvironment:
        """Rename a built environment to its final name. It never changes afterwards."""
        (built / _RECIPE).write_text(lock.recipe_text)
        (built / _REQUIREMENTS).write_text(lock.requirements_text)
        marker = Marker(folder_bytes(built), round(seconds, 1))
        # uv does not sync: after a power cut, empty files must not exist next to a marker.
        os.sync()
        (built / MARKER).write_bytes(msgspec.json.encode(marker))
        target = self.root / lock.folder_name
        if target.exists():  # and is incomplete
            self._move_and_delete(target)
        built.rename(target)
        return InstalledEnvironment(lock, target, marker)

    def remove(self, installed: InstalledEnvironment, cancelled: Event) -> None:
        """Delete an environment.

        Raises:
            Problem: 409 ``environment_in_use``, with the processes.
        """
        with self._locked(installed.folder.name, cancelled):
            if pids := _processes_using(installed.folder):
                raise Problem(
                    Code.ENVIRONMENT_IN_USE,
                    f"{installed.lock.spec.name} is in use by process {', '.join(map(str, pids))}.",
                    hint="`xinference list` shows the running models; terminate those on this engine first.",
                )
            if installed.folder.exists():
                self._move_and_delete(installed.folder)

    def _move_and_delete(self, folder: Path) -> None:
        """Rename a folder, then delete it, so that no partial folder has its name."""
        renamed = self.root / f"{_REMOVING}{folder.name}"
        _delete(renamed)
        folder.rename(renamed)
        _delete(renamed)

    def _clear_leftovers(self) -> None:
        """Delete the folders of killed builds and removals of other environments, unless a process has the lock."""
        at_once = Event()
        at_once.set()  # `locked` raises instead of waiting
        for leftover in (*self.root.glob(f"{_BUILDING}*"), *self.root.glob(f"{_REMOVING}*")):
            name = leftover.name.removeprefix(_BUILDING).removeprefix(_REMOVING)
            with contextlib.suppress(Problem), self._locked(name, at_once):
                _delete(leftover)

    def _locked(self, folder_name: str, cancelled: Event) -> contextlib.AbstractContextManager[None]:
        return locked(self.root / ".locks" / folder_name, cancelled, folder_name)


def _delete(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _processes_using(folder: Path) -> list[int]:
    """Processes whose program is the environment's interpreter."""
    prefix = f"{folder}{os.sep}"
    return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith(prefix)]
