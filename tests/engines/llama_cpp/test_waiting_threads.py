"""How long llama.cpp's threads wait for each other without sleeping, unless the person who launches says otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from xinference.engines.llama_cpp.engine import PROGRAM

READ = "import os, runpy, sys; runpy.run_path(sys.argv[1]); print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.process
@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "500"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_the_variables_of_a_launch_win(given: dict[str, str], used: str) -> None:
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    read = subprocess.run(
        [sys.executable, "-c", READ, str(PROGRAM)], env=others | given, capture_output=True, text=True, check=True
    )
    assert read.stdout.strip() == used
