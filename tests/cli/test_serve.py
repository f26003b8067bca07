from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.canned import Answer, Asked, Canned
from tests.cli.conftest import Run
from tests.client.test_client import free_port
from xinference.cli.main import load


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the server was run with, in place of the server."""
    calls: list[dict[str, Any]] = []

    def run(**options: Any) -> int:
        calls.append(options)
        return 98

    monkeypatch.setitem(sys.modules, "xinference.server", SimpleNamespace(run=run))
    return calls


def test_serve_hands_on_its_options_and_the_exit_status(run: Run, told: list[dict[str, Any]]) -> None:
    result = run(
        "serve", "-H", "0.0.0.0", "-p", "1234", "--log-level", "debug", "--allow-unauthenticated", "--home", "h"
    )
    assert result.exit_code == 98
    assert told == [{"host": "0.0.0.0", "port": 1234, "log_level": "DEBUG", "allow_unauthenticated": True, "home": "h"}]


def test_what_serve_is_not_told_is_left_to_the_settings(run: Run, told: list[dict[str, Any]]) -> None:
    run("serve")
    assert told == [{"host": None, "port": None, "log_level": None, "allow_unauthenticated": None, "home": None}]


def test_xinference_local_is_serve(told: list[dict[str, Any]]) -> None:
    result = CliRunner().invoke(load("xinference.cli.serve:local"), ["-p", "7", "--log-level", "INFO"])
    assert result.exit_code == 98
    assert (told[0]["port"], told[0]["log_level"]) == (7, "INFO")


def test_stop_says_what_it_stopped_once_the_server_is_gone(canned: Canned, run: Run) -> None:
    def stopped(asked: Asked) -> Answer:
        canned.close()
        return Answer({"result": True})

    canned.answers["GET", "/v1/models/instances"] = Answer([{"model_uid": "a"}, {"model_uid": "b"}])
    canned.answers["DELETE", "/v1/clusters"] = stopped
    result = run("stop")
    assert result.exit_code == 0
    assert result.stderr.endswith(f"Stopped the server at {canned.url} and a, b.\n")


def test_stop_without_a_server_is_no_failure(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run("stop", "-e", url)
    assert (result.exit_code, result.stderr) == (0, f"No server runs at {url}.\n")
