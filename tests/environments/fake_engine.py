"""A shipped lock in miniature: an engine of two wheels, made here, and a pip that knows only their folder."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from sysconfig import get_platform, get_python_version
from typing import Any

import msgspec
import pytest

from xinference.config import Settings
from xinference.environments.environments import Environments
from xinference.environments.lock import Recipe
from xinference.environments.spec import EnvironmentSpec

SPEC = EnvironmentSpec("Tiny", "1.0", "cpu")


@dataclass
class FakeEngine:
    """The folders of one test, and the environments over them."""

    root: Path
    verify: str = "import tiny_engine; assert tiny_engine.answer == 42"
    spec: EnvironmentSpec = SPEC
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields of the recipe."""

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def installed_folder(self) -> Path:
        return self.home / "environments"

    def make(self, **settings: Any) -> Environments:
        """Write wheels and lock; the environments of a home that may be used before."""
        for folder in (self.wheels, self.locks):
            folder.mkdir(exist_ok=True)
        first = self._wheel("tiny_engine", "from tiny_dependency import answer\n")
        second = self._wheel("tiny_dependency", "answer = 42\n")
        self.write_lock({"tiny-engine": first, "tiny-dependency": second})
        return self.environments(**settings)

    def environments(self, **settings: Any) -> Environments:
        return Environments(Settings(home=self.home, **settings), self.locks)

    def write_lock(self, hashes: dict[str, str]) -> None:
        recipe = Recipe(
            engine=self.spec.engine,
            version=self.spec.version,
            accelerator=self.spec.accelerator,
            python=get_python_version(),
            platform=get_platform(),
            wheel_platform="linux",
            size_bytes=1 << 20,
            verify=self.verify,
            requirements=("tiny-engine",),
        )
        fields: dict[str, Any] = msgspec.to_builtins(recipe) | self.more
        text = "".join(f"{name} = {toml(value)}\n" for name, value in fields.items())
        self.locks.joinpath(f"{self.spec.name}.toml").write_text(text)
        lines = [f"{name}===1.0 --hash=sha256:{sha256}\n" for name, sha256 in hashes.items()]
        self.locks.joinpath(f"{self.spec.name}.txt").write_text("".join(lines))

    def whole(self) -> list[str]:
        """Names in the folder that look like environments."""
        return [path.name for path in self.installed_folder.glob("[!.]*")]

    def leftovers(self) -> list[str]:
        return [path.name for path in self.installed_folder.glob(".[!l]*")]

    def _wheel(self, name: str, source: str) -> str:
        path, info = self.wheels / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
        files = {
            f"{name}/__init__.py": source,
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "".join(f"{file},,\n" for file in (f"{name}/__init__.py", f"{info}/METADATA")),
        }
        with zipfile.ZipFile(path, "w") as archive:
            for file, content in files.items():
                archive.writestr(zipfile.ZipInfo(file), content)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """A fake engine without a network: pip's configuration, and so uv's, is its folder of wheels."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_", "XINFERENCE_"))]:
        monkeypatch.delenv(name)
    fake = FakeEngine(root)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(fake.wheels))
    monkeypatch.setattr(os, "sync", lambda: None)  # other people's disk traffic is no part of a test
    return fake


def toml(value: Any) -> str:
    """A value in TOML, which takes JSON's strings and numbers."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def unheard(done: int, total: int | None, name: str) -> None:
    """Progress that nobody looks at."""
