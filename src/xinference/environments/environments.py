"""`Environments`: what is shipped, what is installed, and from the one to the other."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sysconfig import get_platform
from threading import Event

from xinference.config import Settings
from xinference.environments import bundle as bundles
from xinference.environments.build import Workshop, build, check
from xinference.environments.child import run
from xinference.environments.installed import Installed, Shelf
from xinference.environments.lock import SHIPPED, Lock, read_locks
from xinference.environments.pip_settings import uv_settings
from xinference.environments.spec import EnvironmentSpec
from xinference.environments.uv_program import uv_program
from xinference.errors import Problem, not_found
from xinference.files.atomic_file import disk_full, need_space
from xinference.files.progress import Progress

_CLEAN_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """One line of the list."""

    spec: EnvironmentSpec
    size_bytes: int
    """Measured if it is installed, else the lock's own statement."""
    python: Path | None
    """Its interpreter, if it is installed."""


class Environments:
    """The engines' environments of one home. Every method blocks; several processes may use it at once.

    An environment is a folder that is named by the hash of its lock, built aside, renamed in when it is whole, and
    not changed any more. Environments of older releases stay beside those of this one until they are removed.
    """

    def __init__(self, settings: Settings, locks: Path | None = None) -> None:
        self._settings = settings
        self._locks_folder = locks or SHIPPED
        self._shelf = Shelf(settings.home / "environments")

    def specs(self) -> list[EnvironmentSpec]:
        """What can be installed, the newest version of an engine first."""
        return [lock.spec for lock in self._locks]

    def entries(self) -> list[Entry]:
        """What can be installed, and what is installed though this release does not ship it."""
        entries = []
        for lock in self._locks:
            found = self._shelf.find(lock.folder_name)
            size = found.marker.size_bytes if found else lock.recipe.size_bytes
            entries.append(Entry(lock.spec, size, found.python if found else None))
        shipped = {lock.folder_name for lock in self._locks}
        others = [found for found in self._shelf.all() if found.folder.name not in shipped]
        return [*entries, *(Entry(o.lock.spec, o.marker.size_bytes, o.python) for o in others)]

    def size(self, spec: EnvironmentSpec) -> int:
        """Bytes on the disk that it takes, as its lock states. Raises `Problem` 404."""
        return self._lock(spec).recipe.size_bytes

    def find(self, spec: EnvironmentSpec) -> Path | None:
        """The interpreter of an environment that is built and whole."""
        found = self._installed(spec)
        return found.python if found else None

    def install(self, spec: EnvironmentSpec, progress: Progress, cancelled: Event) -> Path:
        """Build an environment unless it is there, or wait for whoever builds it; returns its interpreter.

        Progress is in bytes on the disk.

        Raises:
            Problem: 404 ``environment_unknown``, 400 ``environment_unavailable`` on another platform,
                502 ``environment_failed`` with the installer's last lines, 503 ``offline``, 507 ``disk_full``,
                499 ``cancelled``. Nothing half-built is ever found afterwards.
        """
        lock = self._lock(spec)
        return self._build(
            lock, cancelled, lambda folder: build(lock, folder / "environment", self._workshop, progress, cancelled)
        )

    def install_from(self, bundle: Path, progress: Progress, cancelled: Event) -> tuple[EnvironmentSpec, Path]:
        """Install from a file of `pack` without any connection; returns what it was and its interpreter.

        Raises:
            Problem: as `install`; 400 ``bad_bundle``, ``bad_lock``.
        """
        lock = bundles.read_lock(bundle)

        def work(folder: Path) -> Path:
            wheels = bundles.unpack_wheels(bundle, folder / "wheels", cancelled)
            return build(lock, folder / "environment", self._workshop, progress, cancelled, wheels)

        return lock.spec, self._build(lock, cancelled, work)

    def pack(self, spec: EnvironmentSpec, out: Path, progress: Progress, cancelled: Event) -> Path:
        """Write a bundle for `install_from` on another machine of the same platform; returns its path.

        Raises:
            Problem: as `install`; 500 ``cannot_write``.
        """
        lock = self._lock(spec)
        self._refuse_platform(lock)
        with self._disk_problems(), self._shelf.building(lock, cancelled) as folder:
            need_space(folder, lock.recipe.size_bytes, lock.spec.name)
            return bundles.pack(lock, out, folder, self._workshop, progress, cancelled)

    def verify(self, spec: EnvironmentSpec, cancelled: Event) -> Path:
        """Import the engine in its environment; returns the interpreter.

        Raises:
            Problem: 404 ``environment_missing``, 502 ``environment_failed``, 499 ``cancelled``.
        """
        found = self._present(spec)
        check(found.lock, found.python, cancelled)
        return found.python

    def remove(self, spec: EnvironmentSpec, cancelled: Event) -> int:
        """Delete an environment and what only it used of our cache; returns the bytes it took.

        Raises:
            Problem: 404 ``environment_missing``; 409 ``environment_in_use``.
        """
        found = self._present(spec)
        with self._disk_problems():
            self._shelf.remove(found, cancelled)
        self._clean_cache(found.lock, cancelled)
        return found.marker.size_bytes

    # -- within ---------------------------------------------------------------------------------------------

    @cached_property
    def _locks(self) -> tuple[Lock, ...]:
        return read_locks(self._locks_folder)

    @cached_property
    def _workshop(self) -> Workshop:
        """Asks pip for its configuration, once."""
        own = self._settings.cache_dir / "uv"
        cache = Path(os.environ.get("UV_CACHE_DIR") or own)
        pythons = self._settings.home / "python"
        return Workshop(uv_settings(), cache, pythons, self._settings.offline)

    def _lock(self, spec: EnvironmentSpec) -> Lock:
        for lock in self._locks:
            if lock.spec == spec:
                return lock
        raise not_found(
            f"There is no environment {spec.name}.",
            hint=f"There are {', '.join(s.name for s in self.specs())}.",
            code="environment_unknown",
        )

    def _installed(self, spec: EnvironmentSpec) -> Installed | None:
        """By its lock if we ship one; otherwise what an older release or a bundle brought."""
        for lock in self._locks:
            if lock.spec == spec:
                return self._shelf.find(lock.folder_name)
        return next((found for found in self._shelf.all() if found.lock.spec == spec), None)

    def _present(self, spec: EnvironmentSpec) -> Installed:
        found = self._installed(spec)
        if found is None:
            raise not_found(
                f"{spec.name} is not installed.",
                hint="`xinference env list` shows what is; `xinference env install` installs it.",
                code="environment_missing",
            )
        return found

    def _build(self, lock: Lock, cancelled: Event, work: Callable[[Path], Path]) -> Path:
        if found := self._shelf.find(lock.folder_name):
            return found.python
        self._refuse_platform(lock)
        with self._disk_problems(), self._shelf.building(lock, cancelled) as folder:
            if found := self._shelf.find(lock.folder_name):  # another was faster
                return found.python
            need_space(folder, lock.recipe.size_bytes, lock.spec.name)
            started = time.monotonic()
            environment = work(folder).parents[1]
            return self._shelf.put(lock, environment, time.monotonic() - started).python

    def _refuse_platform(self, lock: Lock) -> None:
        here = get_platform()
        if lock.recipe.platform != here:
            raise Problem(
                "environment_unavailable",
                400,
                f"{lock.spec.name} is made for {lock.recipe.platform}, and this is {here}.",
            )

    @contextmanager
    def _disk_problems(self) -> Iterator[None]:
        root = self._shelf.root
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(f"The disk of {root} ran full.") from error
            cause = f"{error.filename or root} cannot be written: {error.strerror}."
            raise Problem("cannot_write", 500, cause, hint="Check the folder's owner and permissions.") from error

    def _clean_cache(self, lock: Lock, cancelled: Event) -> None:
        """The files of an environment are links into uv's cache: only when both are gone is the disk free.

        A cache of the user's own is left alone. One that a build is using is left as it is.
        """
        shop = self._workshop
        if "UV_CACHE_DIR" in shop.settings.variables or not shop.cache.exists():
            return
        used = frozenset[str]().union(*(found.lock.distributions for found in self._shelf.all()))
        names = sorted(lock.distributions - used) if used else []  # no name: everything
        if used and not names:
            return
        run(
            [uv_program(), "cache", "clean", *names],
            variables={**shop.variables, "UV_LOCK_TIMEOUT": "5"},
            cancelled=cancelled,
            what="Cleaning the cache",
            timeout=_CLEAN_SECONDS,
        )
