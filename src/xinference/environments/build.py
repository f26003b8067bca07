"""One build of one environment, in a folder where nobody looks for it yet."""

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
from xinference.environments.child import Ended, run
from xinference.environments.lock import DistInfo, Lock
from xinference.environments.pip_settings import UvSettings
from xinference.environments.uv_program import uv_program
from xinference.errors import Problem
from xinference.files.atomic_file import disk_full
from xinference.files.progress import Progress

_INSTALL_SECONDS = 3 * 3600.0
#: A first import reads gigabytes, from a disk that may be a network away.
_IMPORT_SECONDS = 900.0
_GROWTH_SECONDS = 2.0
_MISSING = re.compile(r"there is no version of|was not found in the (?:package registry|provided package locations)")
_NO_NETWORK = re.compile(r"network (?:was|is) disabled|--offline")
_UNREACHABLE = re.compile(r"error sending request|dns error|Failed to fetch|timed out|tcp connect error", re.IGNORECASE)


@dataclass(frozen=True)
class Workshop:
    """What a build works with."""

    settings: UvSettings
    cache: Path
    """uv's."""
    pythons: Path
    """Where uv puts an interpreter that this machine lacks."""
    offline: bool

    @property
    def variables(self) -> Mapping[str, str]:
        own = {"UV_CACHE_DIR": str(self.cache), "UV_PYTHON_INSTALL_DIR": str(self.pythons), "NO_COLOR": "1"}
        return {**own, **self.settings.variables}


def build(
    lock: Lock, folder: Path, shop: Workshop, progress: Progress, cancelled: Event, wheels: Path | None = None
) -> Path:
    """Make the environment in `folder`, which is not there yet, see that it works, and return its interpreter.

    With `wheels`, a folder of wheels, no connection is opened. The environment can be renamed afterwards: it is
    relocatable (its scripts name no path), and an interpreter finds its packages from where it was called.

    Raises:
        Problem: ``cancelled``, ``environment_failed`` with uv's or Python's last lines, ``offline``, ``disk_full``.
    """
    python = create(lock, folder, shop, cancelled)
    _install(lock, python, shop, progress, cancelled, wheels)
    for info in lock.recipe.dist_info:
        _add(info, folder / "lib" / f"python{lock.recipe.python}" / "site-packages")
    progress(lock.recipe.size_bytes, lock.recipe.size_bytes, f"importing {lock.spec.name}")
    check(lock, python, cancelled)
    return python


def create(lock: Lock, folder: Path, shop: Workshop, cancelled: Event) -> Path:
    """An empty environment with the lock's Python; returns its interpreter. Raises `Problem` as `build`."""
    version = lock.recipe.python
    ours = f"{sys.version_info.major}.{sys.version_info.minor}" == version
    # The interpreter that runs us, below any virtual environment of ours; otherwise uv finds or fetches one.
    wanted = str(sys._base_executable) if ours else version  # type: ignore[attr-defined]  # typeshed lacks it
    argv = [uv_program(), "venv", "--quiet", "--relocatable", "--python", wanted, *_offline(shop), str(folder)]
    ended = run(argv, variables=shop.variables, cancelled=cancelled, what=_what(lock), timeout=_INSTALL_SECONDS)
    if ended.status:
        hint = f"Python {version} is needed; if uv cannot fetch it, install it with the system's own means."
        raise _failed(lock, ended, folder, hint)
    return folder / "bin" / "python"


def check(lock: Lock, python: Path, cancelled: Event) -> None:
    """See whether the engine can be imported.

    Raises:
        Problem: ``cancelled``; 502 ``environment_failed`` with Python's last lines.
    """
    ended = run(
        # -I: nothing of the user's folder or variables; -B: an environment does not change once it is built.
        [str(python), "-I", "-B", "-c", lock.recipe.verify],
        variables=_quiet_variables(),
        cancelled=cancelled,
        what=_what(lock),
        timeout=_IMPORT_SECONDS,
    )
    if ended.status:
        raise Problem(
            "environment_failed",
            502,
            f"{lock.spec.name} is installed, but {lock.recipe.engine} cannot be imported from it.",
            hint="The last lines say why; a missing driver or an old C library is the usual reason.",
            log_tail=ended.tail,
        )


def _install(
    lock: Lock, python: Path, shop: Workshop, progress: Progress, cancelled: Event, wheels: Path | None
) -> None:
    requirements = python.parents[1] / "requirements.txt"
    requirements.write_text(lock.requirements_text)

    def attempt(flags: tuple[str, ...]) -> Ended:
        argv = [
            *(uv_program(), "pip", "install", "--python", str(python), "-r", str(requirements)),
            # The lock is complete, so uv need not look for more, and nothing it lists is compiled from source.
            *("--no-deps", "--require-hashes", "--no-build", "--compile-bytecode"),
            # Of several builds of one version, the lock has those for this platform and not for newer ones.
            *("--python-platform", lock.recipe.wheel_platform),
            *flags,
        ]
        tick = _ticker(lock, shop, progress)
        what, variables = _what(lock), shop.variables
        return run(argv, variables=variables, cancelled=cancelled, what=what, timeout=_INSTALL_SECONDS, tick=tick)

    if wheels is not None:
        ended = attempt(("--no-index", "--offline", "--find-links", str(wheels)))
    else:
        ended = attempt((*shop.settings.flags, *_offline(shop)))
        if ended.status and lock.recipe.indexes and not shop.offline and _MISSING.search(ended.output):
            # Not from the start: where the user's own indexes have it all, a foreign one need not be reachable.
            hints = (flag for index in lock.recipe.indexes for flag in ("--index", index))
            ended = attempt((*shop.settings.flags, *hints))
    if ended.status:
        raise _failed(lock, ended, python.parents[1], "The last lines are uv's own.")


def _ticker(lock: Lock, shop: Workshop, progress: Progress) -> Callable[[str], None]:
    """Passes on how much came; what is in uv's cache already does not count."""
    growth, looked, done = CacheGrowth(shop.cache), 0.0, 0
    total, label = lock.recipe.size_bytes, lock.spec.name

    def tick(line: str) -> None:
        nonlocal looked, done, label
        if line.startswith("Installed "):  # what uv says when only compiling is left
            looked, done, label = math.inf, total, f"compiling {lock.spec.name}"
        if time.monotonic() - looked >= _GROWTH_SECONDS:
            looked, done = time.monotonic(), growth.bytes()
        progress(min(done, total), total, label)

    return tick


def _add(info: DistInfo, site_packages: Path) -> None:
    """The least that importlib.metadata takes for a distribution."""
    folder = site_packages / f"{info.name}-{info.version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {info.name}\nVersion: {info.version}\n")
    (folder / "INSTALLER").write_text("xinference\n")
    (folder / "RECORD").write_text("".join(f"{folder.name}/{name},,\n" for name in ("METADATA", "INSTALLER", "RECORD")))


def _failed(lock: Lock, ended: Ended, folder: Path, hint: str) -> Problem:
    """uv's failure as a problem."""
    name = lock.spec.name
    if "No space left on device" in ended.output or "Disk quota exceeded" in ended.output:
        return disk_full(f"The disk of {folder} ran full while {name} was installed.")
    if _NO_NETWORK.search(ended.output):
        return Problem(
            "offline",
            503,
            f"{name} is not installed, and XINFERENCE_OFFLINE forbids to fetch what it needs.",
            hint=f"Unset it, or `xinference env install --from` a bundle made by `xinference env pack` for {name}.",
            log_tail=ended.tail,
        )
    if _UNREACHABLE.search(ended.output):
        hint = "Check the network, and `pip config list` for index, proxy and certificate."
    elif _MISSING.search(ended.output):
        hint = "The indexes of `pip config list` were asked; a mirror may lag behind."
    return Problem("environment_failed", 502, f"{name} could not be installed.", hint=hint, log_tail=ended.tail)


def _quiet_variables() -> dict[str, str]:
    """For the import: no connection to Hugging Face, whatever the engine does when it is loaded."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def _offline(shop: Workshop) -> tuple[str, ...]:
    return ("--offline", "--no-python-downloads") if shop.offline else ()


def _what(lock: Lock) -> str:
    return f"Installing {lock.spec.name}"
