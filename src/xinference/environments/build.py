"""Builds one environment in a temporary folder."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from xinference.environments.cache_growth import CacheGrowth
from xinference.environments.child import ProgramResult, run
from xinference.environments.lock import DistInfo, Lock
from xinference.environments.pip_settings import UvSettings
from xinference.environments.uv_program import uv_program
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.disk_space import disk_full
from xinference.files.progress import Progress

_INSTALL_SECONDS = 3 * 3600.0
#: A first import reads gigabytes, possibly from a network disk.
_IMPORT_SECONDS = 900.0
_GROWTH_SECONDS = 2.0
_MISSING = re.compile(r"there is no version of|was not found in the (?:package registry|provided package locations)")
_NO_NETWORK = re.compile(r"network (?:was|is) disabled|--offline")
_UNREACHABLE = re.compile(r"error sending request|dns error|Failed to fetch|timed out|tcp connect error", re.IGNORECASE)


@dataclass(frozen=True)
class BuildContext:
    """Settings and folders of a build."""

    settings: UvSettings
    cache: Path
    """uv's cache."""
    pythons: Path
    """Folder of the interpreters that uv downloads."""
    offline: bool

    @property
    def variables(self) -> Mapping[str, str]:
        own = {"UV_CACHE_DIR": str(self.cache), "UV_PYTHON_INSTALL_DIR": str(self.pythons), "NO_COLOR": "1"}
        return {**own, **self.settings.variables}


def build(
    lock: Lock, folder: Path, context: BuildContext, progress: Progress, cancelled: Event, wheels: Path | None = None
) -> Path:
    """Build the environment in the new folder `folder`, verify it, and return its interpreter.

    With `wheels`, a folder of wheels, no connection is opened. The environment can be renamed afterwards: it is
    relocatable (its scripts contain no path), and an interpreter finds its packages relative to its own path.

    Raises:
        Problem: ``cancelled``, ``environment_failed`` with uv's or Python's last lines, ``offline``, ``disk_full``.
    """
    python = create_environment(lock, folder, context, cancelled)
    _install(lock, python, context, progress, cancelled, wheels)
    for info in lock.recipe.dist_info:
        _add(info, folder / "lib" / f"python{lock.recipe.python}" / "site-packages")
    progress(lock.recipe.size_bytes, lock.recipe.size_bytes, f"importing {lock.spec.name}")
    verify_import(lock, python, cancelled)
    return python


def create_environment(lock: Lock, folder: Path, context: BuildContext, cancelled: Event) -> Path:
    """An empty environment with the lock's Python; returns its interpreter. Raises `Problem` as `build`."""
    version = lock.recipe.python
    is_current = f"{sys.version_info.major}.{sys.version_info.minor}" == version
    # If the version matches, the base interpreter of this process; otherwise uv finds or downloads one.
    interpreter = str(getattr(sys, "_base_executable", sys.executable)) if is_current else version
    argv = [uv_program(), "venv", "--quiet", "--relocatable", "--python", interpreter, *_offline(context), str(folder)]
    result = run(argv, variables=context.variables, cancelled=cancelled, what=_title(lock), timeout=_INSTALL_SECONDS)
    if result.status:
        hint = f"Python {version} is needed; if uv cannot download it, install it with the system's package manager."
        raise _failure(lock, result, folder, hint)
    return folder / "bin" / "python"


def verify_import(lock: Lock, python: Path, cancelled: Event) -> None:
    """Check that the engine can be imported.

    Raises:
        Problem: ``cancelled``; 502 ``environment_failed`` with Python's last lines.
    """
    result = run(
        # -I: nothing from the user's folder or variables; -B: a built environment does not change.
        [str(python), "-I", "-B", "-c", lock.recipe.verify],
        variables=_variables(lock),
        cancelled=cancelled,
        what=_title(lock),
        timeout=_IMPORT_SECONDS,
    )
    if result.status:
        raise Problem(
            Code.ENVIRONMENT_FAILED,
            f"{lock.spec.name} is installed, but {lock.recipe.engine} cannot be imported from it.",
            hint="The last lines give the reason; usually a missing driver or an old C library.",
            log_tail=result.tail,
        )


def _install(
    lock: Lock, python: Path, context: BuildContext, progress: Progress, cancelled: Event, wheels: Path | None
) -> None:
    requirements = python.parents[1] / "requirements.txt"
    requirements.write_text(lock.requirements_text)

    def attempt(flags: tuple[str, ...]) -> ProgramResult:
        argv = [
            *(uv_program(), "pip", "install", "--python", str(python), "-r", str(requirements)),
            # The lock is complete, so uv does not resolve dependencies; nothing is compiled from source.
            *("--no-deps", "--require-hashes", "--no-build", "--compile-bytecode"),
            # The lock has hashes for this platform only, even if there are several builds of one version.
            *("--python-platform", lock.recipe.wheel_platform),
            *flags,
        ]
        tick = _progress_reporter(lock, context, progress)
        what, variables = _title(lock), context.variables
        return run(argv, variables=variables, cancelled=cancelled, what=what, timeout=_INSTALL_SECONDS, tick=tick)

    if wheels is not None:
        result = attempt(("--no-index", "--offline", "--find-links", str(wheels)))
    else:
        result = attempt((*context.settings.flags, *_offline(context)))
        if result.status and lock.recipe.indexes and not context.offline and _MISSING.search(result.output):
            # Only as a fallback: if the user's own indexes have all packages, the additional one may be unreachable.
            hints = (flag for index in lock.recipe.indexes for flag in ("--index", index))
            result = attempt((*context.settings.flags, *hints))
    if result.status:
        raise _failure(lock, result, python.parents[1], "The last lines are uv's output.")


def _progress_reporter(lock: Lock, context: BuildContext, progress: Progress) -> Callable[[str], None]:
    """A function that reports the downloaded bytes, without the packages that are already in uv's cache."""
    growth, checked_at, done = CacheGrowth(context.cache), 0.0, 0
    total, label = lock.recipe.size_bytes, lock.spec.name

    def tick(line: str) -> None:
        nonlocal checked_at, done, label
        if line.startswith("Installed "):  # uv's output when only compilation is left
            checked_at, done, label = math.inf, total, f"compiling {lock.spec.name}"
        if time.monotonic() - checked_at >= _GROWTH_SECONDS:
            checked_at, done = time.monotonic(), growth.bytes()
        progress(min(done, total), total, label)

    return tick


def _add(info: DistInfo, site_packages: Path) -> None:
    """Write the minimum that importlib.metadata needs for a distribution."""
    folder = site_packages / f"{info.name}-{info.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name}\nVersion: {info.version}\n")
    (folder / "INSTALLER").write_text("xinference\n")
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))


def _failure(lock: Lock, result: ProgramResult, folder: Path, hint: str) -> Problem:
    """Convert uv's failure to a problem."""
    name = lock.spec.name
    if "No space left on device" in result.output or "Disk quota exceeded" in result.output:
        return disk_full(f"The disk of {folder} became full while {name} was installed.")
    if _NO_NETWORK.search(result.output):
        return Problem(
            Code.OFFLINE,
            f"{name} is not installed, and XINFERENCE_OFFLINE forbids downloading its packages.",
            hint=f"Unset it, or `xinference env install --from` a bundle made by `xinference env pack` for {name}.",
            log_tail=result.tail,
        )
    if _UNREACHABLE.search(result.output):
        hint = "Check the network, and `pip config list` for index, proxy and certificate."
    elif _MISSING.search(result.output):
        hint = "The packages come from the indexes of `pip config list`; a mirror may be out of date."
    return Problem(Code.ENVIRONMENT_FAILED, f"{name} could not be installed.", hint=hint, log_tail=result.tail)


def _variables(lock: Lock) -> dict[str, str]:
    """The variables for the import, which forbid the engine any connection to Hugging Face."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", **lock.recipe.variables}


def _offline(context: BuildContext) -> tuple[str, ...]:
    return ("--offline", "--no-python-downloads") if context.offline else ()


def _title(lock: Lock) -> str:
    return f"Installing {lock.spec.name}"
