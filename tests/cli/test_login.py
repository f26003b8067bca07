from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run, Terminal

LINE = ("login", "--username", "u", "--password", "p")


@pytest.fixture
def home(canned: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a server that wants a login."""
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": True})
    canned.answers["POST", "/token"] = Answer({"access_token": "t1", "token_type": "bearer"})
    canned.answers["GET", "/v1/models/instances"] = Answer([])
    return tmp_path / "home"


def sent(canned: Canned) -> str | None:
    return canned.asked_for("GET", "/v1/models/instances")[-1].headers.get("authorization")


def test_a_login_is_kept_for_its_endpoint_and_for_the_user_alone(canned: Canned, run: Run, home: Path) -> None:
    assert run(*LINE).exit_code == 0
    assert canned.asked_for("POST", "/token")[0].body == {"username": "u", "password": "p"}
    file = home / "auth" / hashlib.sha256(canned.url.encode()).hexdigest()
    assert file.read_text() == "t1"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, home)] == [0o600, 0o700, 0o700]


def test_the_commands_that_follow_use_the_login(canned: Canned, run: Run, home: Path) -> None:
    assert run("list").exit_code == 0 and sent(canned) is None
    run(*LINE)
    assert run("list").exit_code == 0 and sent(canned) == "Bearer t1"
    canned.answers["POST", "/token"] = Answer({"access_token": "t2"})
    run(*LINE)
    assert run("list", "-e", f"{canned.url}/").exit_code == 0 and sent(canned) == "Bearer t2"


def test_a_key_that_is_named_wins(canned: Canned, run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(*LINE)
    monkeypatch.setenv("XINFERENCE_API_KEY", "sk-env")
    assert run("list").exit_code == 0 and sent(canned) == "Bearer sk-env"
    assert run("list", "-ak", "sk-option").exit_code == 0 and sent(canned) == "Bearer sk-option"


def test_a_wrong_password_keeps_nothing(canned: Canned, run: Run, home: Path) -> None:
    canned.answers["POST", "/token"] = problem(401, "unauthorized", "Incorrect username or password.")
    result = run(*LINE)
    assert result.exit_code == 1 and "Incorrect username or password." in result.stderr
    assert not home.exists()


def test_a_server_without_logins_says_so(canned: Canned, run: Run, home: Path) -> None:
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": False})
    result = run(*LINE)
    assert result.exit_code == 0 and "does not require a login" in result.stderr
    assert canned.asked_for("POST", "/token") == []


def test_a_command_without_a_key_is_told_how_to_get_in(canned: Canned, run: Run, home: Path) -> None:
    canned.answers["GET", "/v1/models/instances"] = problem(401, "no_key", "No key was given.", hint="Send a header.")
    result = run("list")
    assert result.exit_code == 1
    assert "No key was given." in result.stderr and "xinference login" in result.stderr
    assert "header" not in result.stderr


def test_a_script_gives_the_name_and_the_key_on_standard_input(canned: Canned, run: Run, home: Path) -> None:
    result = run("login", stdin="u\np\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Warning" not in result.stderr
    assert canned.asked_for("POST", "/token")[0].body == {"username": "u", "password": "p"}


def test_a_missing_line_is_named_by_its_option(canned: Canned, run: Run, home: Path) -> None:
    result = run("login", "--username", "u", stdin="")
    assert result.exit_code == 2 and "Missing option '--password'" in result.stderr


def test_nothing_is_asked_where_no_login_is_required(canned: Canned, run: Run, home: Path) -> None:
    canned.answers["GET", "/v1/cluster/auth"] = Answer({"auth": False})
    result = run("login", stdin="")
    assert result.exit_code == 0 and "does not require a login" in result.stderr


@pytest.mark.process
def test_at_a_terminal_the_key_is_asked_for_and_not_shown(
    canned: Canned, home: Path, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal("login")
    shown.until("Username: ")
    shown.type("u\n")
    shown.until("Password: ")
    shown.type("secret\n")
    assert shown.end() == (0, "")
    assert "secret" not in shown.seen
    assert canned.asked_for("POST", "/token")[0].body == {"username": "u", "password": "secret"}
