"""The keeper as a program."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process


def test_the_keeper_loads_nothing_heavy() -> None:
    code = "import sys, xinference.process.keeper; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert not {"asyncio", "aiohttp", "psutil", "msgspec", "xinference.errors"} & set(loaded.stdout.split())


def test_a_keeper_without_a_spec_ends() -> None:
    argv = [sys.executable, "-P", "-m", "xinference.process.keeper"]
    assert subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0
