from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from xinference.cli.key_table import COLUMNS, NARROW
from xinference.cli.main import cli
from xinference.cli.table import column_widths
from xinference.config import Settings
from xinference.keys.keyring import Keyring
from xinference.process.home import announce, own_home
from xinference.store.database import Store

KEY = {
    "id": "key-1",
    "name": "a",
    "scopes": ["use"],
    "models": None,
    "expires": None,
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "requests_in_flight": None,
    "max_output_tokens": None,
    "max_request_seconds": None,
    "created": 1.0,
    "last_used": None,
    "revoked": None,
}


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def at_home(home: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in a home, with no endpoint named."""
    monkeypatch.setenv("XINFERENCE_HOME", str(home.home))

    def runner(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["keys", *args], input=stdin, prog_name="xinference")

    return runner


@pytest.fixture
def served(home: Settings, canned: Canned) -> Iterator[Canned]:
    """A server that holds the home, on a port that no setting names."""
    home.home.mkdir()
    with own_home(home):
        announce(home, "0.0.0.0", int(canned.url.rpartition(":")[2]), "sk-owner")
        yield canned


def stored(home: Settings) -> Keyring:
    return Keyring(Store(home.home / "xinference.db"))


def test_without_a_server_a_key_is_made_in_the_store_and_printed_alone_on_stdout(at_home: Run, home: Settings) -> None:
    result = at_home("create", "--name", "a", "--model", "m", "--model", "n", "--expires", "30d", "--scope", "use")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    key = stored(home).table.find(secret.encode())
    assert key is not None and key.name == "a" and sorted(key.models or ()) == ["m", "n"]
    assert key.expires is not None and round(key.expires - key.created) == 30 * 86400
    assert secret not in result.stderr


def test_a_key_has_use_alone_unless_told_and_both_if_told(at_home: Run) -> None:
    assert json.loads(at_home("create", "--json").stdout)["scopes"] == ["use"]
    both = json.loads(at_home("create", "--scope", "manage", "--scope", "use", "--json").stdout)
    assert both["scopes"] == ["manage", "use"] and both["key"].startswith("sk-xinf-")


def test_the_list_says_what_each_key_may_do_and_not_the_key(at_home: Run) -> None:
    secret = at_home("create", "--name", "a", "--tokens-per-minute", "9000").stdout.strip()
    at_home("create", "--name", "b")
    at_home("revoke", "b")
    result = at_home("list")
    a, b = (line for line in result.stdout.splitlines()[2:])
    assert a.startswith("a ") and "9000" in a and a.endswith("active")
    assert b.startswith("b ") and b.endswith("revoked")
    assert secret not in result.stdout
    assert [key["name"] for key in json.loads(at_home("list", "--json").stdout)] == ["a", "b"]


def test_the_list_of_keys_with_all_limits_fits_80_columns() -> None:
    key = {
        "name": "team-a", "id": "key-5244a79e", "scopes": ["manage", "monitor", "use"], "models": ["chat-small"],
        "requests_per_minute": 1000000, "tokens_per_minute": 1000000, "requests_in_flight": 8,
        "max_output_tokens": 4096, "max_request_seconds": 30.5, "expires": 1.8e9, "last_used": 1.8e9, "revoked": None,
    }  # fmt: skip
    row = [str(COLUMNS[name](key, 0.0)) for name in NARROW]
    widths = column_widths([NARROW, row], 80)
    assert sum(widths) + 2 * (len(widths) - 1) <= 80
    words = {name: max(map(len, cell.split())) for name, cell in zip(NARROW, row, strict=True)}
    assert all(width >= words[name] for name, width in zip(NARROW, widths, strict=True)), "no word is cut"
    assert row[3] == "1000000 requests/min, 1000000 tokens/min, 8 in flight, 4096 output tokens, 30.5 s per request"


def test_the_limits_of_one_answer_are_set_and_removed(at_home: Run) -> None:
    limits = ("--max-output-tokens", "1024", "--max-request-seconds", "1.5")
    key = json.loads(at_home("create", "--name", "a", *limits, "--json").stdout)
    assert (key["max_output_tokens"], key["max_request_seconds"]) == (1024, 1.5)
    key = json.loads(at_home("update", "a", "--max-output-tokens", "none", "--json").stdout)
    assert (key["max_output_tokens"], key["max_request_seconds"]) == (None, 1.5)
    assert at_home("create", "--max-request-seconds", "0").exit_code == 2


def test_off_asks_and_then_removes_every_key(at_home: Run, home: Settings) -> None:
    at_home("create")
    assert at_home("off", stdin="n\n").exit_code == 130
    assert len(stored(home).all()) == 1
    assert at_home("off", "--yes").exit_code == 0
    assert stored(home).all() == []


@pytest.mark.parametrize("span", ["30", "d", "0d", "-1d", "1month", ""])
def test_a_span_that_is_none_is_refused_with_the_form(at_home: Run, span: str) -> None:
    result = at_home("create", "--expires", span)
    assert result.exit_code == 2 and "30d" in result.stderr


def test_what_cant_be_is_told_and_status_1(at_home: Run) -> None:
    result = at_home("revoke", "nobody")
    assert result.exit_code == 1 and "no key 'nobody'" in result.stderr


def test_a_running_server_of_this_home_is_asked_with_the_owners_key(
    at_home: Run, served: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_API_KEY", "a key that may only use")
    served.answers["POST", "/v1/keys"] = Answer({**KEY, "key": "sk-new"})
    result = at_home("create", "--name", "a", "--requests-per-minute", "5")
    assert (result.exit_code, result.stdout) == (0, "sk-new\n")
    (asked,) = served.asked_for("POST", "/v1/keys")
    assert asked.headers["authorization"] == "Bearer sk-owner"
    assert asked.body == {"name": "a", "scopes": ["use"], "requests_per_minute": 5}


def test_a_named_server_is_asked_with_the_given_key(run: Run, canned: Canned) -> None:
    canned.answers["DELETE", "/v1/keys/a"] = Answer(KEY)
    result = run("keys", "revoke", "a", "-ak", "mine")
    assert (result.exit_code, result.stderr) == (0, "Revoked a (key-1).\n")
    assert canned.asked[-1].headers["authorization"] == "Bearer mine"


def test_other_commands_use_the_owners_key_at_this_homes_server(
    served: Canned, home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(home.home))
    monkeypatch.setenv("XINFERENCE_PORT", served.url.rpartition(":")[2])
    served.answers["GET", "/v1/models/instances"] = Answer([])
    assert CliRunner().invoke(cli, ["list"]).exit_code == 0
    assert served.asked[-1].headers["authorization"] == "Bearer sk-owner"


def test_a_key_is_changed_and_an_unknown_model_is_named(canned: Canned, run: Run) -> None:
    canned.answers["PATCH", "/v1/keys/a"] = Answer({**KEY, "models": ["typo"], "unknown_models": ["typo"]})
    line = ["--model", "typo", "--expires", "none", "--requests-per-minute", "7", "--rename", "b", "--scope", "monitor"]
    result = run("keys", "update", "a", *line)
    assert result.exit_code == 0, result.stderr
    assert "Warning: no model has the name typo now." in result.stderr and "Changed the key a" in result.stderr
    assert canned.asked[0].body == {
        "models": ["typo"], "expires_in": None, "requests_per_minute": 7, "name": "b", "scopes": ["monitor"],
    }  # fmt: skip
    assert run("keys", "update", "a", "--all-models").exit_code == 0
    assert canned.asked[1].body == {"models": None}


@pytest.mark.parametrize("line", [[], ["--model", "a", "--all-models"], ["--expires", "soon"]])
def test_a_change_that_makes_no_sense_is_a_usage_error(canned: Canned, run: Run, line: list[str]) -> None:
    assert run("keys", "update", "a", *line).exit_code == 2 and canned.asked == []


def test_a_key_of_this_home_is_changed_without_a_server(at_home: Run, home: Settings) -> None:
    assert at_home("create", "--name", "a", "--scope", "monitor").exit_code == 0
    assert at_home("update", "a", "--scope", "use", "--tokens-per-minute", "5").exit_code == 0
    (key,) = stored(home).all()
    assert key.scopes == {"use"} and key.tokens_per_minute == 5
