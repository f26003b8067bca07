"""For developers: resolves the shipped locks again, ``python -m xinference.environments.relock [NAME...]``.

uv needs only the packages' metadata for this, so locks for GPUs can be made without downloading their packages.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from xinference.environments.lock import SHIPPED, Recipe
from xinference.environments.pip_settings import UvSettings, uv_settings
from xinference.environments.uv_program import uv_program


def main() -> None:
    names = sys.argv[1:] or sorted(file.stem for file in SHIPPED.glob("*.toml"))
    for name in names:
        recipe = msgspec.toml.decode((SHIPPED / f"{name}.toml").read_bytes(), type=Recipe)
        lines = resolve(recipe, uv_settings())
        (SHIPPED / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
        sys.stdout.write(f"{name}: {len(lines)} packages\n")


def resolve(recipe: Recipe, settings: UvSettings) -> list[str]:
    """The lines of a lock: each package of the recipe with the hashes of the compatible wheels."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted, left_out, out = (Path(scratch, name) for name in ("wanted.in", "left_out.txt", "pylock.toml"))
        wanted.write_text("\n".join(recipe.requirements))
        # An override with a marker that is always false removes a dependency from every package that declares it.
        left_out.write_text("\n".join(f"{name} ; sys_platform == 'never'" for name in recipe.leave_out))
        subprocess.run(
            [
                *(uv_program(), "pip", "compile", "--quiet", "--format", "pylock.toml", "--only-binary", ":all:"),
                *("--python-version", recipe.python, "--python-platform", recipe.wheel_platform),
                *("--override", str(left_out), "-o", str(out), str(wanted)),
                # Not the user's indexes, which may be partial copies. Local wheels include builds for CPUs, which
                # sort above those for GPUs of the same version.
                *(settings.find_links if recipe.accelerator == "cpu" else ()),
            ],
            env=dict(settings.variables),
            check=True,
        )
        return [_line(package) for package in tomllib.loads(out.read_text())["packages"]]


def _line(package: Mapping[str, Any]) -> str:
    hashes = sorted(f"--hash=sha256:{wheel['hashes']['sha256']}" for wheel in package["wheels"])
    # Three equal signs: 2.13.0 is not 2.13.0+cpu.
    return " ".join([f"{package['name']}==={package['version']}", *hashes])


if __name__ == "__main__":
    main()
