"""The folder that holds built environments: which are whole, which are leftovers, and which are in use."""

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
from xinference.errors import Problem
from xinference.files.locks import locked

#: Written last, so that a folder with it is whole.
MARKER = "environment.json"
_RECIPE, _REQUIREMENTS = "environment.toml", "requirements.txt"
_BUILDING, _REMOVING = ".building-", ".removing-"


class Marker(msgspec.Struct, frozen=True):
    """What is known of a whole environment."""

    size_bytes: int
    seconds: float
    """That the build took."""


@dataclass(frozen=True)
class Installed:
    """A whole environment."""

    lock: Lock
    folder: Path
    marker: Marker

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


class Shelf:
    """``<home>/environments``: a folder an environment, named by what is in it, and a lock for each name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, folder_name: str) -> Installed | None:
        """A whole environment; None also if the Python that it was made with has gone."""
        folder = self.root / folder_name
        try:
            marker = msgspec.json.decode((folder / MARKER).read_bytes(), type=Marker)
            lock = parse_lock((folder / _RECIPE).read_text(), (folder / _REQUIREMENTS).read_text(), folder_name)
        except (FileNotFoundError, msgspec.DecodeError, Problem):
            return None
        found = Installed(lock, folder, marker)
        return found if found.python.exists() else None

    def all(self) -> list[Installed]:
        """Every whole environment, by name."""
        names = sorted(path.name for path in self.root.glob("[!.]*"))
        return [found for name in names if (found := self.find(name))]

    @contextlib.contextmanager
    def building(self, lock: Lock, cancelled: Event) -> Iterator[Path]:
        """A folder to build in, alone, with nothing in it; it and what is in it are gone afterwards.

        Raises:
            Problem: 499 ``cancelled`` while another builds the same.
        """
        with self._alone(lock.folder_name, cancelled):
            self._clear_leftovers()
            workplace = self.root / f"{_BUILDING}{lock.folder_name}"
            _delete(workplace)  # a killed build's
            workplace.mkdir(parents=True)
            try:
                yield workplace
            finally:
                _delete(workplace)

    def put(self, lock: Lock, built: Path, seconds: float) -> Installed:
        """Give a built environment its name. From here on it never changes."""
        (built / _RECIPE).write_text(lock.recipe_text)
        (built / _REQUIREMENTS).write_text(lock.requirements_text)
        marker = Marker(folder_bytes(built), round(seconds, 1))
        # A power cut must not leave empty files behind a marker: uv does not wait for the disk.
        os.sync()
        (built / MARKER).write_bytes(msgspec.json.encode(marker))
        target = self.root / lock.folder_name
        if target.exists():  # and is not whole
            self._put_away(target)
        built.rename(target)
        return Installed(lock, target, marker)

    def remove(self, installed: Installed, cancelled: Event) -> None:
        """Delete an environment.

        Raises:
            Problem: 409 ``environment_in_use``, with the processes.
        """
        with self._alone(installed.folder.name, cancelled):
            if pids := _users(installed.folder):
                raise Problem(
                    "environment_in_use",
                    409,
                    f"{installed.lock.spec.name} is in use by process {', '.join(map(str, pids))}.",
                    hint="`xinference list` shows the models that run; terminate those on this engine first.",
                )
            if installed.folder.exists():
                self._put_away(installed.folder)

    def _put_away(self, folder: Path) -> None:
        """Delete a folder so that it is never seen in part under its name."""
        doomed = self.root / f"{_REMOVING}{folder.name}"
        _delete(doomed)
        folder.rename(doomed)
        _delete(doomed)

    def _clear_leftovers(self) -> None:
        """Delete what killed builds and removals of other environments left, unless one is at work there."""
        at_once = Event()
        at_once.set()  # so that `locked` gives up instead of waiting
        for leftover in (*self.root.glob(f"{_BUILDING}*"), *self.root.glob(f"{_REMOVING}*")):
            name = leftover.name.removeprefix(_BUILDING).removeprefix(_REMOVING)
            with contextlib.suppress(Problem), self._alone(name, at_once):
                _delete(leftover)

    def _alone(self, folder_name: str, cancelled: Event) -> contextlib.AbstractContextManager[None]:
        return locked(self.root / ".locks" / folder_name, cancelled, folder_name)


def _delete(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _users(folder: Path) -> list[int]:
    """Processes that were started with the environment's interpreter."""
    prefix = f"{folder}{os.sep}"
    return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith(prefix)]
