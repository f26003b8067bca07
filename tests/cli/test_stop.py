from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Asked, Canned
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference.cli.commands import stop as stop_command
from xinference.config import Settings


@pytest.fixture
def two_models(canned: Canned) -> None:
    """A server with two models that can be stopped."""

    def stopped(asked: Asked) -> Answer:
        canned.close()
        return Answer({"result": True})

    canned.answers["GET", "/v1/models/instances"] = Answer([{"model_uid": "a"}, {"model_uid": "b"}])
    canned.answers["DELETE", "/v1/clusters"] = stopped


def test_stop_says_what_it_stopped_once_the_server_is_gone(canned: Canned, run: Run, two_models: None) -> None:
    result = run("stop")
    assert result.exit_code == 0
    assert result.stderr.endswith(f"Stopped the server at {canned.url} and a, b.\n")


def test_stop_as_json_says_what_was_stopped(canned: Canned, run: Run, two_models: None) -> None:
    result = run("stop", "--json")
    assert json.loads(result.stdout) == {"url": canned.url, "stopped": True, "models": ["a", "b"]}
    url = f"http://127.0.0.1:{free_port()}"
    assert json.loads(run("stop", "--json", "-e", url).stdout) == {"url": url, "stopped": False, "models": []}


def test_stop_without_a_server_is_no_failure(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = run("stop", "-e", url)
    assert (result.exit_code, result.stderr) == (0, f"No server runs at {url}.\n")


@pytest.mark.parametrize(("words", "stdin"), [(["--check"], ""), ([], "y\n")])
def test_a_cluster_is_stopped_after_a_yes(
    canned: Canned, run: Run, two_models: None, words: list[str], stdin: str
) -> None:
    result = run("stop-cluster", "-e", canned.url, *words, stdin=stdin)
    assert result.exit_code == 0
    assert f"The server at {canned.url} runs a, b." in result.stderr
    assert len(canned.asked_for("DELETE", "/v1/clusters")) == 1


def test_a_cluster_is_left_alone_without_a_yes(canned: Canned, run: Run, two_models: None) -> None:
    assert "Nothing was stopped." in run("stop-cluster", "-e", canned.url, stdin="n\n").stderr
    assert canned.asked_for("DELETE", "/v1/clusters") == []


def test_the_cluster_to_stop_has_to_be_named(canned: Canned, run: Run) -> None:
    assert run("stop-cluster", "--check").exit_code == 2
    assert canned.asked == []


def test_stop_waits_until_the_servers_process_has_left_its_home(
    canned: Canned, run: Run, two_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setattr(stop_command, "REPORT_SECONDS", 0.0)
    settings = Settings(home=tmp_path)
    (tmp_path / "server.json").write_text(json.dumps({"pid": 1, "endpoint": canned.url}))
    looks = []

    def is_free(asked: Settings) -> bool:
        assert asked.home == settings.home
        looks.append(1)
        return len(looks) == 3

    monkeypatch.setattr("xinference.process.home.is_free", is_free)
    result = run("stop")
    assert result.exit_code == 0, result.stderr
    assert len(looks) == 3
    assert "Waiting for the server to end its answers and models" in result.stderr
    assert result.stderr.endswith(f"Stopped the server at {canned.url} and a, b.\n")


def test_stop_does_not_wait_for_the_home_of_another_server(
    canned: Canned, run: Run, two_models: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    (tmp_path / "server.json").write_text(json.dumps({"pid": 1, "endpoint": "http://127.0.0.1:1"}))
    monkeypatch.setattr("xinference.process.home.is_free", lambda settings: False)
    assert run("stop").exit_code == 0
