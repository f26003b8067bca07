from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference import __version__
from xinference.cli.main import COMMANDS, load
from xinference.cli.output import clean, size

HEAVY = ("httpx2", "rich", "msgspec", "fastapi", "aiohttp", "pydantic", "uvicorn")


@pytest.mark.process
@pytest.mark.parametrize("args", [["--help"], ["launch", "--help"], ["chat", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    script = (
        "import sys\nfrom xinference.cli.main import cli\n"
        f"try: cli({args!r})\nexcept SystemExit as e: assert not e.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_loaded_and_helps(run: Run, name: str) -> None:
    assert load(COMMANDS[name][0]).name == name
    assert run(name, "--help").exit_code == 0


def test_the_version_is_ours(run: Run) -> None:
    assert run("-v").stdout == f"xinference {__version__}\n"


def test_a_usage_error_exits_with_2(run: Run) -> None:
    assert run("nonsense").exit_code == 2
    assert run("list", "--nonsense").exit_code == 2
    assert run("launch").exit_code == 2


def test_a_problem_is_shown_on_stderr_with_its_hint_and_log(canned: Canned, run: Run) -> None:
    canned.answers["DELETE", "/v1/models/x"] = problem(
        404, "model_not_found", "There is no x.", hint="Try y.", log_tail=["one", "\x1b[2Jtwo"]
    )
    result = run("terminate", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == ("Error: There is no x.\nHint: Try y.\nLast lines of the engine:\n    one\n    [2Jtwo\n")


def test_no_server_is_said_with_the_way_out(run: Run) -> None:
    result = run("list", "-e", f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "No server answers" in result.stderr
    assert "xinference serve" in result.stderr


def test_a_bad_setting_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFERENCE_PORT", "many")
    result = run("list")
    assert result.exit_code == 1
    assert "XINFERENCE_PORT is 'many'" in result.stderr


def test_the_endpoint_and_the_key_can_be_options(canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFERENCE_ENDPOINT", "http://127.0.0.1:1")
    canned.answers["GET", "/v1/models/instances"] = Answer([])
    assert run("list", "-e", canned.url, "-ak", "sk-1").exit_code == 0
    assert canned.asked[0].headers["authorization"] == "Bearer sk-1"


@pytest.mark.process
def test_a_reader_that_leaves_ends_the_command_quietly(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = Answer(iter([b"x" * 65536] * 100), content_type="text/plain")
    command = f"{sys.executable} -m xinference.cli.main logs m -e {canned.url} | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("x", "")


def test_cleaned_text_keeps_newlines_tabs_and_letters() -> None:
    assert clean("a\tö\n\x1b[31mred\x07\r\x9b2J") == "a\tö\n[31mred2J"


@pytest.mark.parametrize(
    ("count", "text"), [(None, "unknown"), (5, "5 B"), (4 << 30, "4.0 GiB"), (1 << 51, "2048.0 TiB")]
)
def test_sizes_are_readable(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.process
def test_a_terminal_that_cannot_show_a_letter_ends_nothing(canned: Canned) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = Answer("größe\n", content_type="text/plain")
    done = subprocess.run(
        [sys.executable, "-m", "xinference.cli.main", "logs", "m", "-e", canned.url],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "gr??e\n"
