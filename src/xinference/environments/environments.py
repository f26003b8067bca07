"""`Environments`: lists, installs, verifies, packs and removes the engines' environments."""

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
from xinference.environments.build import BuildContext, build, verify_import
from xinference.environments.child import run
from xinference.environments.installed import EnvironmentFolder, InstalledEnvironment
from xinference.environments.lock import SHIPPED, Lock, read_locks
from xinference.environments.pip_settings import uv_settings
from xinference.environments.spec import EnvironmentSpec
from xinference.environments.uv_program import uv_program
from xinference.error_codes import Code
from xinference.errors import Problem, not_found
from xinference.files.disk_space import disk_full, need_space
from xinference.files.progress import Progress

_CLEAN_SECONDS = 60.0


@dataclass(frozen=True)
class EnvironmentEntry:
    """One line of the list of environments."""

    spec: EnvironmentSpec
    size_bytes: int
    """Measured if the environment is installed, else estimated in its lock."""
    python: Path | None
    """The interpreter of an installed environment, else None."""
    is_outdated: bool = False
    """Another release or a bundle installed it, and this release does not use it."""


class Environments:
    """The engines' environments of one home. Every method blocks; several processes may use it at once.

    An environment is a folder named by the hash of its lock. It is built in a temporary folder, renamed when it is
    complete, and never changed. Environments of older releases are not deleted automatically.
    """

    def __init__(self, settings: Settings, locks: Path | None = None) -> None:
        self._settings = settings
        self._locks_folder = locks or SHIPPED
        self._installed_folder = EnvironmentFolder(settings.home / "environments")

    def specs(self) -> list[EnvironmentSpec]:
        """The environments of this release, the newest version of an engine first."""
        return [lock.spec for lock in self._locks]

    def entries(self) -> list[EnvironmentEntry]:
        """The environments of this release, and the installed ones of other releases."""
        entries = []
        for lock in self._locks:
            installed = self._installed_folder.find(lock.folder_name)
            size = installed.marker.size_bytes if installed else lock.recipe.size_bytes
            entries.append(EnvironmentEntry(lock.spec, size, installed.python if installed else None))
        shipped = {lock.folder_name for lock in self._locks}
        others = [installed for installed in self._installed_folder.all() if installed.folder.name not in shipped]
        return [*entries, *(self._entry(each) for each in others)]

    def size(self, spec: EnvironmentSpec) -> int:
        """The environment's bytes on the disk, as its lock states. Raises `Problem` 404."""
        return self._lock(spec).recipe.size_bytes

    def find(self, spec: EnvironmentSpec) -> Path | None:
        """The interpreter of a complete environment."""
        installed = self._find_environment(spec)
        return installed.python if installed else None

    def install(self, spec: EnvironmentSpec, progress: Progress, cancelled: Event) -> Path:
        """Build an environment unless it exists, or wait for the process that builds it; returns its interpreter.

        Progress is in bytes on the disk.

        Raises:
            Problem: 404 ``environment_unknown``, 400 ``environment_unavailable`` on another platform,
                502 ``environment_failed`` with the installer's last lines, 503 ``offline``, 507 ``disk_full``,
                499 ``cancelled``. A partial build never counts as installed.
        """
        lock = self._lock(spec)
        return self._build(
            lock,
            cancelled,
            lambda folder: build(lock, folder / "environment", self._build_context, progress, cancelled),
        )

    def install_from(self, bundle: Path, progress: Progress, cancelled: Event) -> tuple[EnvironmentSpec, Path]:
        """Install a bundle of `pack` without any connection; returns its spec and interpreter.

        Raises:
            Problem: as `install`; 400 ``bad_bundle``, ``bad_lock``.
        """
        lock = bundles.read_lock(bundle)

        def work(folder: Path) -> Path:
            wheels = bundles.unpack_wheels(bundle, folder / "wheels", cancelled)
            return build(lock, folder / "environment", self._build_context, progress, cancelled, wheels)

        return lock.spec, self._build(lock, cancelled, work)

    def pack(self, spec: EnvironmentSpec, out: Path, progress: Progress, cancelled: Event) -> Path:
        """Write a bundle for `install_from` on another machine of the same platform; returns its path.

        Raises:
            Problem: as `install`; 500 ``cannot_write``.
        """
        lock = self._lock(spec)
        self._refuse_platform(lock)
        with self._disk_problems(), self._installed_folder.build_folder(lock, cancelled) as folder:
            need_space(folder, lock.recipe.size_bytes, lock.spec.name)
            return bundles.pack(lock, out, folder, self._build_context, progress, cancelled)

    def verify(self, spec: EnvironmentSpec, cancelled: Event) -> Path:
        """Import the engine in its environment; returns the interpreter.

        Raises:
            Problem: 404 ``environment_missing``, 502 ``environment_failed``, 499 ``cancelled``.
        """
        installed = self._require_installed(spec)
        verify_import(installed.lock, installed.python, cancelled)
        return installed.python

    def remove_folder(self, name: str, cancelled: Event) -> EnvironmentEntry | None:
        """Delete the environment in the folder of this name, also an outdated one; None: there is no such folder.

        Raises:
            Problem: 409 ``environment_in_use``.
        """
        installed = next((each for each in self._installed_folder.all() if each.folder.name == name), None)
        if installed is None:
            return None
        entry = self._entry(installed)
        self._delete(installed, cancelled)
        return entry

    def remove(self, spec: EnvironmentSpec, cancelled: Event) -> int:
        """Delete an environment, and its packages in uv's cache that no other one uses; returns the freed bytes.

        Raises:
            Problem: 404 ``environment_missing``; 409 ``environment_in_use``.
        """
        installed = self._require_installed(spec)
        self._delete(installed, cancelled)
        return installed.marker.size_bytes

    # -- internals ------------------------------------------------------------------------------------------

    def _entry(self, installed: InstalledEnvironment) -> EnvironmentEntry:
        spec = installed.lock.spec
        replaced = any(lock.spec == spec and lock.folder_name != installed.folder.name for lock in self._locks)
        return EnvironmentEntry(spec, installed.marker.size_bytes, installed.python, is_outdated=replaced)

    def _delete(self, installed: InstalledEnvironment, cancelled: Event) -> None:
        with self._disk_problems():
            self._installed_folder.remove(installed, cancelled)
        self._clean_cache(installed.lock, cancelled)

    @cached_property
    def _locks(self) -> tuple[Lock, ...]:
        return read_locks(self._locks_folder)

    @cached_property
    def _build_context(self) -> BuildContext:
        """Reads pip's configuration, once."""
        own = self._settings.cache_dir / "uv"
        cache = Path(os.environ.get("UV_CACHE_DIR") or own)
        pythons = self._settings.home / "python"
        return BuildContext(uv_settings(), cache, pythons, self._settings.offline)

    def _lock(self, spec: EnvironmentSpec) -> Lock:
        for lock in self._locks:
            if lock.spec == spec:
                return lock
        raise not_found(
            f"There is no environment {spec.name}.",
            hint=f"The environments are {', '.join(s.name for s in self.specs())}.",
            code=Code.ENVIRONMENT_UNKNOWN,
        )

    def _find_environment(self, spec: EnvironmentSpec) -> InstalledEnvironment | None:
        """The environment of the shipped lock if there is one; otherwise one of an older release or a bundle."""
        for lock in self._locks:
            if lock.spec == spec:
                return self._installed_folder.find(lock.folder_name)
        return next((installed for installed in self._installed_folder.all() if installed.lock.spec == spec), None)

    def _require_installed(self, spec: EnvironmentSpec) -> InstalledEnvironment:
        installed = self._find_environment(spec)
        if installed is None:
            raise not_found(
                f"{spec.name} is not installed.",
                hint="`xinference env list` shows the installed ones; `xinference env install` installs it.",
                code=Code.ENVIRONMENT_MISSING,
            )
        return installed

    def _build(self, lock: Lock, cancelled: Event, work: Callable[[Path], Path]) -> Path:
        if installed := self._installed_folder.find(lock.folder_name):
            return installed.python
        self._refuse_platform(lock)
        with self._disk_problems(), self._installed_folder.build_folder(lock, cancelled) as folder:
            if installed := self._installed_folder.find(lock.folder_name):  # another process built it meanwhile
                return installed.python
            need_space(folder, lock.recipe.size_bytes, lock.spec.name)
            started = time.monotonic()
            environment = work(folder).parents[1]
            return self._installed_folder.put(lock, environment, time.monotonic() - started).python

    def _refuse_platform(self, lock: Lock) -> None:
        platform = get_platform()
        if lock.recipe.platform != platform:
            raise Problem(
                Code.ENVIRONMENT_UNAVAILABLE,
                f"{lock.spec.name} is built for {lock.recipe.platform}, but this machine is {platform}.",
            )

    @contextmanager
    def _disk_problems(self) -> Iterator[None]:
        root = self._installed_folder.root
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(f"The disk of {root} is full.") from error
            cause = f"{error.filename or root} cannot be written: {error.strerror}."
            raise Problem(Code.CANNOT_WRITE, cause, hint="Check the folder's owner and permissions.") from error

    def _clean_cache(self, lock: Lock, cancelled: Event) -> None:
        """Delete an environment's packages from uv's cache, which frees their disk space: its files are links to them.

        The user's own cache is not changed, and neither is a cache that a build is using.
        """
        context = self._build_context
        if "UV_CACHE_DIR" in context.settings.variables or not context.cache.exists():
            return
        used = frozenset[str]().union(*(installed.lock.distributions for installed in self._installed_folder.all()))
        names = sorted(lock.distributions - used) if used else []  # without names, uv cleans everything
        if used and not names:
            return
        run(
            [uv_program(), "cache", "clean", *names],
            variables={**context.variables, "UV_LOCK_TIMEOUT": "5"},
            cancelled=cancelled,
            what="Cleaning the cache",
            timeout=_CLEAN_SECONDS,
        )
