"""The lines that `make chat` ends with work as they are printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Two models run, so that `chat` without a name would be refused.
PROGRAM = """#!/bin/sh
case "$1" in
launch) echo smollm2-instruct-x1 ;;
chat) echo "chat:$*" ;;
esac
"""


@pytest.mark.process
def test_the_next_commands_name_the_model(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    environment = tmp_path / "venv"
    (environment / "bin").mkdir(parents=True)
    program = environment / "bin" / "xinference"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    installed = environment / ".installed"
    installed.touch()
    os.utime(installed, (2**33, 2**33))  # newer than what it is made of
    shown = subprocess.run(
        [make, "--no-print-directory", "-C", str(ROOT), "chat", f"VENV={environment}", f"BIN={environment}/bin"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    commands = re.findall(r"^  (\S+ .*?)  +\S", shown.partition("\nNext:\n")[2], re.MULTILINE)
    assert commands == [f"{program} chat smollm2-instruct-x1", f"{program} list", f"{program} stop"]
    again = subprocess.run(commands[0], shell=True, capture_output=True, text=True, check=True).stdout
    assert again == "chat:chat smollm2-instruct-x1\n"
