"""The shipped lock files: every package of an engine by version and hash, and the facts for the build.

A lock is two files: ``<name>.txt``, pip's requirements format with one hash for each wheel, and ``<name>.toml``,
with its Python version, its platform, additional metadata, and the test of the result.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from xinference.environments.spec import Accelerator, EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import Problem

SHIPPED = Path(__file__).parent / "locks"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)===(\S+)", re.MULTILINE)
# A match becomes part of a folder's name.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")


class DistInfo(msgspec.Struct, frozen=True):
    """The metadata of a distribution that is added to the environment without its files."""

    name: str
    version: str


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sidecar file of a lock: how its environment is built."""

    engine: str
    version: str
    accelerator: Accelerator
    python: str
    """The Python version of the hashes: ``3.11``."""
    platform: str
    """The name of the platform by `sysconfig.get_platform`: ``linux-x86_64``."""
    wheel_platform: str
    """The platform for uv, with the oldest supported C library: ``x86_64-manylinux_2_31``."""
    size_bytes: int
    """Bytes on the disk, compiled; measured after a build, or estimated."""
    verify: str
    """Python code that succeeds if the engine works."""
    requirements: tuple[str, ...]
    """The requirements from which the lock was resolved."""
    leave_out: tuple[str, ...] = ()
    """Distributions that others require but the engine does not need."""
    indexes: tuple[str, ...] = ()
    """Additional indexes, used only if the user's own indexes lack a package."""
    dist_info: tuple[DistInfo, ...] = ()
    variables: dict[str, str] = {}
    """Environment variables for `verify`."""


@dataclass(frozen=True)
class Lock:
    """One environment, with the version and the hash of each package."""

    recipe: Recipe
    recipe_text: str
    requirements_text: str

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(self.recipe.engine, self.recipe.version, self.recipe.accelerator)

    @cached_property
    def folder_name(self) -> str:
        """The name of the folder: ``vllm-0.32.0-cpu-0123456789ab``.

        The hash covers all fields that affect the content: not the size, and not the additional indexes.
        """
        recipe = self.recipe
        parts = (self.requirements_text, recipe.python, recipe.platform, recipe.verify, repr(recipe.dist_info))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return f"{self.spec.name}-{digest[:12]}"

    @property
    def packages(self) -> dict[str, str]:
        """The name of each package -> its version."""
        return dict(_PINNED.findall(self.requirements_text))

    @property
    def distributions(self) -> frozenset[str]:
        """The names of its packages."""
        return frozenset(match[1] for match in _PINNED.finditer(self.requirements_text))


def parse_lock(recipe_text: str, requirements_text: str, what: str) -> Lock:
    """A lock from the texts of its two files.

    Raises:
        Problem: 400 ``bad_lock``; `what` is the name of the lock in the message.
    """
    try:
        recipe = msgspec.toml.decode(recipe_text, type=Recipe)
    except msgspec.DecodeError as error:
        raise Problem(Code.BAD_LOCK, f"{what} is not the description of an environment: {error}.") from error
    if not re.fullmatch(r"[A-Za-z0-9]+", recipe.engine) or not _VERSION.fullmatch(recipe.version):
        raise Problem(Code.BAD_LOCK, f"{what} has the engine {recipe.engine!r} {recipe.version!r}.")
    return Lock(recipe, recipe_text, requirements_text)


def read_locks(folder: Path = SHIPPED) -> tuple[Lock, ...]:
    """All locks of a folder, by engine, accelerator and version, newest first.

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
    """A version's numbers, as a sort key."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
