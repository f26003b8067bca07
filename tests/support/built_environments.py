"""The environments of engines that are built on this machine, for the homes of tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.environments.environments import Environments
from xinference.hardware.devices import read_host


def environments() -> Path | None:
    """The folder of built environments that the engine under test is looked for in."""
    named = os.environ.get("XINFERENCE_TEST_ENVIRONMENTS")
    return Path(named) if named else Settings.from_env().home / "environments"


def link_environments(home: Path) -> None:
    """Let a home use the built environments, if there are any."""
    folder = environments()
    if folder is not None and folder.is_dir():
        (home / "environments").symlink_to(folder.resolve())


def has_environment(home: Path, engine: str) -> bool:
    """Whether an engine can start in a home: its environment is built there, or it needs none."""
    spec = all_engines()[engine].environment(read_host())
    return spec is None or Environments(Settings(home=home)).find(spec) is not None


def require_environment(home: Path, engine: str) -> None:
    """Let a home use the built environments; skip the test if that of the engine is not built."""
    link_environments(home)
    if not has_environment(home, engine):
        pytest.skip(f"the environment of {engine} is not built here (xinference env install {engine})")
