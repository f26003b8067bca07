"""The lock files that we ship: every package of an engine by version and hash, and what else a build must know.

A lock is two files: ``<name>.txt``, pip's requirements format with one hash for each wheel, and ``<name>.toml``,
which says for which Python and platform it was made, what to add, and how to see that the result works.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from xinference.environments.spec import Accelerator, EnvironmentSpec
from xinference.errors import Problem

SHIPPED = Path(__file__).parent / "locks"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)===(\S+)", re.MULTILINE)
# What is let through here ends up in the name of a folder.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")


class DistInfo(msgspec.Struct, frozen=True):
    """The metadata of a distribution that is put into the environment without any file of it."""

    name: str
    version: str


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sidecar: what one environment is made for and with."""

    engine: str
    version: str
    accelerator: Accelerator
    python: str
    """Minor version that the hashes are for: ``3.11``."""
    platform: str
    """As `sysconfig.get_platform` names it: ``linux-x86_64``."""
    wheel_platform: str
    """The same for uv, with the oldest C library: ``x86_64-manylinux_2_31``."""
    size_bytes: int
    """On the disk, compiled; measured where the environment was built, or else estimated."""
    verify: str
    """Python code that ends well if the engine works."""
    requirements: tuple[str, ...]
    """What the lock was resolved from."""
    leave_out: tuple[str, ...] = ()
    """Distributions that others require and that the engine does without."""
    indexes: tuple[str, ...] = ()
    """Asked only where the user's own indexes do not have everything."""
    dist_info: tuple[DistInfo, ...] = ()


@dataclass(frozen=True)
class Lock:
    """One environment, down to the bytes of its packages."""

    recipe: Recipe
    recipe_text: str
    requirements_text: str

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(self.recipe.engine, self.recipe.version, self.recipe.accelerator)

    @cached_property
    def folder_name(self) -> str:
        """``vllm-0.32.0-cpu-0123456789ab``: the name says what is inside.

        Hashed is everything that decides it, and so not the size or the hints.
        """
        recipe = self.recipe
        parts = (self.requirements_text, recipe.python, recipe.platform, recipe.verify, repr(recipe.dist_info))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"{self.spec.name}-{digest[:12]}"

    @property
    def distributions(self) -> frozenset[str]:
        """The names of its packages."""
        return frozenset(match[1] for match in _PINNED.finditer(self.requirements_text))


def parse_lock(recipe_text: str, requirements_text: str, what: str) -> Lock:
    """A lock from the texts of its two files.

    Raises:
        Problem: 400 ``bad_lock``, saying what is wrong with `what`.
    """
    try:
        recipe = msgspec.toml.decode(recipe_text, type=Recipe)
    except msgspec.DecodeError as error:
        raise Problem("bad_lock", 400, f"{what} is not the description of an environment: {error}.") from error
    if not re.fullmatch(r"[A-Za-z0-9]+", recipe.engine) or not _VERSION.fullmatch(recipe.version):
        raise Problem("bad_lock", 400, f"{what} names the engine {recipe.engine!r} {recipe.version!r}.")
    return Lock(recipe, recipe_text, requirements_text)


def read_locks(folder: Path = SHIPPED) -> tuple[Lock, ...]:
    """All locks of a folder, by engine, accelerator and version, the newest first.

    Raises:
        Problem: 400 ``bad_lock``.
    """
    locks = [
        parse_lock(file.read_text(), file.with_suffix(".txt").read_text(), file.name)
        for file in folder.glob("*.toml")
        if file.with_suffix(".txt").exists()
    ]
    locks.sort(key=lambda lock: numbers(lock.recipe.version), reverse=True)
    return tuple(sorted(locks, key=lambda lock: (lock.recipe.engine.lower(), lock.recipe.accelerator)))


def numbers(version: str) -> tuple[int, ...]:
    """A version's numbers, to sort by."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
