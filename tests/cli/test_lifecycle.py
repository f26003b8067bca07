"""`unload`, `load`, `restart`, `reload` and `history`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.cli.test_models import RECORD
from xinference.client import server_restart
from xinference.config import Settings
from xinference.error_codes import Code
from xinference.errors import Problem


@pytest.mark.parametrize(
    ("on_demand", "text"), [(False, "`xinference load m` loads it again"), (True, "its next request loads it")]
)
def test_unload_says_how_the_model_is_loaded_again(canned: Canned, run: Run, on_demand: bool, text: str) -> None:
    canned.answers["POST", "/v1/models/m/unload"] = Answer({"id": "m", "on_demand": on_demand})
    result = run("unload", "m")
    assert (result.exit_code, result.stdout) == (0, "") and text in result.stderr


@pytest.mark.parametrize("command", ["load", "restart"])
def test_load_and_restart_print_the_uid_once_the_model_is_ready(canned: Canned, run: Run, command: str) -> None:
    canned.answers["POST", f"/v1/models/m/{command}"] = Answer({"id": "m"})
    assert run(command, "m").stdout == "m\n"
    assert json.loads(run(command, "m", "--json").stdout) == {"id": "m"}
    assert {asked.query for asked in canned.asked} == {"wait_ready=true"}


def test_a_load_that_fails_ends_with_1(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models/m/load"] = problem(503, "engine_died", "The engine exited.")
    result = run("load", "m")
    assert result.exit_code == 1 and "The engine exited." in result.stderr


def test_a_reload_sends_the_changed_options(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models/m/reload"] = Answer({"status": "reloading"}, 202)
    result = run("reload", "--model-uid", "m", "--model-config", '{"n_ctx": 8192}', "--drain-timeout", "5")
    assert json.loads(result.stdout) == {"status": "reloading"}
    assert canned.asked[0].body == {"model_config": {"n_ctx": 8192}, "drain_timeout": 5.0}
    for text in ("[]", "{}", "n_ctx=3"):
        assert run("reload", "--model-uid", "m", "--model-config", text).exit_code == 2


def test_a_reload_takes_engine_options_as_a_launch_does(canned: Canned, run: Run) -> None:
    canned.answers["POST", "/v1/models/m/reload"] = Answer({"status": "reloading"}, 202)
    assert run("reload", "m", "--n_ctx", "8192", "--flash-attn=true").exit_code == 0
    assert canned.asked[0].body["model_config"] == {"n_ctx": 8192, "flash_attn": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Give an engine option to change"),
        (("--n_ctx", "1", "--model-config", '{"n_ctx": 2}'), "--n_ctx is also in --model-config"),
    ],
)
def test_a_reload_without_an_option_or_with_one_twice_is_refused(run: Run, words: tuple[str, ...], said: str) -> None:
    result = run("reload", "m", *words)
    assert result.exit_code == 2 and said in result.stderr


def test_terms_are_shown_and_changed(canned: Canned, run: Run) -> None:
    shown = {"on_demand": True, "ttl": 300.0, "pin": False, "priority": 2}
    canned.answers["GET", "/v1/models/m"] = Answer(shown)
    canned.answers["PATCH", "/v1/models/m"] = Answer({**shown, "pin": True})
    assert run("terms", "m").stdout == "on demand: unloaded after 5 min without a request, priority 2\n"
    changed = run("terms", "m", "--pin")
    assert changed.stdout == "on demand: never unloaded for another model, unloaded after 5 min without a request\n"
    assert [each.body for each in canned.asked_for("PATCH", "/v1/models/m")] == [{"pin": True}]
    run("terms", "m", "--no-pin", "--ttl", "0", "--priority", "-1")
    assert canned.asked_for("PATCH", "/v1/models/m")[1].body == {"ttl": 0.0, "pin": False, "priority": -1}
    assert json.loads(run("terms", "m", "--json").stdout) == {"model_uid": "m", **shown}
    assert run("terms", "m", "--ttl", "-1").exit_code == 2


def test_the_terms_of_a_model_that_is_not_on_demand_are_none(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/m"] = Answer({"on_demand": False})
    assert run("terms", "m").stdout == "not on demand\n"


def test_aliases_are_added_removed_and_printed(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/m"] = Answer({"aliases": ["a", "b"]})
    canned.answers["PUT", "/v1/models/m/aliases"] = Answer({"aliases": ["a", "c"]})
    assert run("alias", "m").stdout == "a\nb\n" and canned.asked_for("PUT", "/v1/models/m/aliases") == []
    assert run("alias", "m", "c", "--remove", "b").stdout == "a\nc\n"
    assert canned.asked_for("PUT", "/v1/models/m/aliases")[0].body == {"aliases": ["a", "c"]}
    result = run("alias", "m", "--remove", "x")
    assert result.exit_code == 2 and "m has no alias x" in result.stderr
    assert json.loads(run("alias", "m", "--json").stdout) == {"model_uid": "m", "aliases": ["a", "b"]}


def test_the_history_is_a_table_with_the_reasons(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/launch_history"] = Answer([RECORD])
    result = run("history", "--wide")
    assert "lost" in result.stdout and "failed" in result.stdout and "It is not there." in result.stdout
    assert json.loads(run("history", "--json").stdout) == [RECORD]
    canned.answers["GET", "/v1/launch_history"] = Answer([])
    assert run("history").stderr == "No launch is recorded.\n"


def test_the_server_of_another_home_is_not_restarted(
    canned: Canned, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    result = run("restart")
    assert result.exit_code == 1 and "is not the server of this home" in result.stderr and canned.asked == []


def test_there_is_no_server_to_restart(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        server_restart.find_server(Settings(home=tmp_path))
    assert refused.value.code == Code.NO_SERVER


@pytest.mark.process
def test_the_server_starts_again_with_its_own_command_variables_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, program = (
        Settings(home=tmp_path, drain_seconds=1.0),
        "import time; print('x', flush=True); time.sleep(99)",
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "MINE": "1"}, cwd=tmp_path, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"x\n"
        (tmp_path / "server.json").write_text(json.dumps({"pid": child.pid, "endpoint": "http://127.0.0.1:7"}))
        monkeypatch.setattr(server_restart, "is_free", lambda settings: child.poll() is not None)
        started: dict[str, object] = {}

        def ensure_server(settings: Settings, announce: object, **how: object) -> bool:
            started.update(how, url=settings.url)
            return True

        monkeypatch.setattr(server_restart, "ensure_server", ensure_server)
        assert server_restart.restart_server(settings, lambda text: None) == "http://127.0.0.1:7"
        assert child.wait() == -signal.SIGTERM
    assert started["command"] == (sys.executable, "-c", program) and started["folder"] == tmp_path.resolve()
    environment = started["environment"]
    assert isinstance(environment, dict)
    assert (environment["MINE"], environment["XINFERENCE_PORT"], started["url"]) == ("1", "7", "http://127.0.0.1:7")


def test_a_server_of_a_service_manager_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {server_restart.RESTART_VARIABLE: "systemctl --user restart xinference"}
    server = server_restart.RunningServer(object(), "http://x", (), environment, tmp_path)
    monkeypatch.setattr(server_restart, "find_server", lambda settings: server)
    with pytest.raises(Problem) as refused:
        server_restart.restart_server(Settings(home=tmp_path), lambda text: None)
    assert refused.value.code == Code.MANAGED_SERVER
    assert "`systemctl --user restart xinference`" in str(refused.value.hint)
