from __future__ import annotations

import subprocess
import sys

import pytest
from click.shell_completion import ShellComplete

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from xinference.cli.main import cli


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


def completed(monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash is offered for the last word of `line`."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    found = ShellComplete(cli, {}, "xinference", "_XINFERENCE_COMPLETE").get_completions(words[1:-1], words[-1])
    return [str(item.value) for item in found]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("xinference launch -n smol", "smollm2-instruct"),
        ("xinference launch smol", "smollm2-instruct"),
        ("xinference run qwen2.5-i", "qwen2.5-instruct"),
        ("xinference launch -en vl", "vLLM"),
        ("xinference launch -n llama-2-chat -q q4_k", "Q4_K_M"),
        ("xinference engine -n phi-4", "phi-4"),
        ("xinference terminate m", "mine"),
        ("xinference logs m", "mine"),
        ("xinference chat -u m", "mine"),
        ("xinference chat m", "mine"),
    ],
)
def test_values_are_completed(
    canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer([{"model_uid": "mine"}, {"model_uid": "other"}])
    offered = completed(monkeypatch, line)
    assert expected in offered and "other" not in offered


def test_without_a_server_no_uid_is_offered(canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(monkeypatch, "xinference terminate m") == []
