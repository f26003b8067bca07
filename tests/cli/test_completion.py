from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Run


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_the_shell_is_printed(run: Run, shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_XINFERENCE_COMPLETE={shell}_complete" in script


def test_another_shell_is_a_usage_error(run: Run) -> None:
    assert run("completion", "csh").exit_code == 2


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "expected"), [("xinference regi", "registrations"), ("xinference launch --model-eng", "--model-engine")]
)
def test_commands_and_their_options_are_completed(words: str, expected: str) -> None:
    env = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_XINFERENCE_COMPLETE": "bash_complete"}
    command = [sys.executable, "-m", "xinference.cli.main"]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert f"plain,{expected}" in found.splitlines()
