from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.canned import Answer, Canned
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference.cli.commands.models import WIDE
from xinference.cli.main import cli
from xinference.process.log_links import link_log

INSTANCES: list[dict[str, object]] = [
    {
        "model_uid": "m",
        "model_type": "LLM",
        "model_name": "llama",
        "model_engine": "llama.cpp",
        "model_format": "ggufv2",
        "model_size_in_billions": 7,
        "quantization": "Q4_0",
        "context_length": 4096,
        "status": "READY",
        "problem": None,
    },
    {"model_uid": "broken", "model_name": "x", "status": "ERROR", "problem": {"code": "c", "cause": "It died."}},
]


RECORD = {
    "id": 3,
    "model_name": "llama",
    "model_uid": "lost",
    "status": "failed",
    "data": {"model_name": "llama", "model_uid": "lost", "quantization": "Q4_1"},
    "created_at": "2026-01-02T03:04:05Z",
    "updated_at": "2026-01-02T03:04:05Z",
    "ready_at": None,
    "ended_at": "2026-01-02T03:04:09Z",
    "problem": {"code": "c", "cause": "It is not there."},
}


def test_the_list_is_a_table_and_says_what_went_wrong(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    result = run("list")
    header, _, first, second = result.stdout.splitlines()
    assert header.split("  ")[0] == "UID"
    assert first.split() == ["m", "llama", "7B", "Q4_0", "llama.cpp", "4096", "-", "-", "READY"]
    assert second.split() == ["broken", "x", "-", "-", "-", "-", "ERROR"]
    assert result.stderr == "broken: It died.\n"


def test_the_list_says_why_a_replica_waits(canned: Canned, run: Run) -> None:
    replicas = [
        {"replica_id": 0, "status": "READY", "error_message": None},
        {"replica_id": 1, "status": "RECOVERING", "error_message": "waits: No node has room: n1 (box) is LEAVING."},
    ]
    canned.answers["GET", "/v1/models/instances"] = Answer([{**INSTANCES[0], "replicas": replicas}])
    assert run("list").stderr == "m: replica 1: waits: No node has room: n1 (box) is LEAVING.\n"


def test_the_list_as_json_is_what_the_server_said(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    assert json.loads(run("list", "--json").stdout) == INSTANCES


def test_the_list_of_all_has_the_launches_that_failed_before_they_ran(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/instances"] = Answer(INSTANCES)
    canned.answers["GET", "/v1/launch_history"] = Answer([RECORD, {**RECORD, "ready_at": RECORD["created_at"]}])
    listed = json.loads(run("list", "--all", "--json").stdout)
    assert [(each["model_uid"], each["status"]) for each in listed[2:]] == [("lost", "FAILED")]
    assert canned.asked_for("GET", "/v1/launch_history")[0].query == "failed=true"
    result = run("list", "--all")
    assert "FAILED" in result.stdout and "lost: It is not there." in result.stderr


def test_a_model_is_terminated_by_option_or_argument(canned: Canned, run: Run) -> None:
    canned.answers["DELETE", "/v1/models/m"] = Answer(None)
    for args in (["--model-uid", "m"], ["m"], ["-u", "m", "m"]):
        result = run("terminate", *args)
        assert (result.exit_code, result.stdout) == (0, "")
    assert len(canned.asked) == 3


def test_terminating_nothing_in_particular_is_a_usage_error(canned: Canned, run: Run) -> None:
    assert run("terminate").exit_code == 2
    assert run("terminate", "a", "-u", "b").exit_code == 2
    assert canned.asked == []


def test_logs_are_printed_as_they_are(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = Answer("one\n\x1b[1mtwo\n", content_type="text/plain")
    assert run("logs", "m", "-f", "--lines", "7").stdout == "one\n\x1b[1mtwo\n"
    assert canned.asked[0].query == "lines=7&follow=true"
    canned.answers["GET", "/v1/models/m-rep1/logs"] = Answer("of 1\n", content_type="text/plain")
    assert run("logs", "m", "--replica", "1", "-f").stdout == "of 1\n"
    for name in ("x", "-1", "rep", "m-1", "other-rep1"):
        assert run("logs", "m", f"--replica={name}").exit_code == 2, name
    for name in ("rep1", "m-rep1"):
        assert run("logs", "m", "--replica", name, "-f").stdout == "of 1\n"
    canned.answers["GET", "/v1/logs"] = Answer("of the server\n", content_type="text/plain")
    assert run("logs", "--server", "-f").stdout == "of the server\n"
    for wrong in ([], ["m", "--server"], ["--server", "--replica", "1"]):
        assert run("logs", *wrong).exit_code == 2, wrong


def test_the_lines_of_a_log_have_the_short_option_of_tail(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/models/m/logs"] = Answer("one\n", content_type="text/plain")
    assert run("logs", "m", "-f", "-n", "7").stdout == "one\n"
    assert canned.asked[0].query == "lines=7&follow=true"


def test_the_list_shows_memory_age_replicas_and_the_time_of_unloading(
    canned: Canned, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 10_000.0)
    full: dict[str, object] = {
        **INSTANCES[0],
        "memory_used_bytes": 331 << 20,
        "instance_created_ts": 2_000,
        "replicas": [{"status": "READY"}, {"status": "LOADING"}],
        "on_demand": True,
        "ttl": 20,
    }
    canned.answers["GET", "/v1/models/instances"] = Answer([full])
    header, _, row = run("list").stdout.splitlines()
    assert header.split() == [
        "UID", "Version", "Engine", "Context", "Memory", "Replicas", "Age", "Until", "Status"
    ]  # fmt: skip
    assert re.split("  +", row) == [
        "m", "llama 7B Q4_0", "llama.cpp", "4096", "331 MiB", "1/2", "2 h", "idle 20 s", "READY"
    ]  # fmt: skip
    assert run("list", "--wide").stdout.splitlines()[0].split() == WIDE
    rates = {"in_flight": [1, 3], "waiting": [0, 2], "output_tokens_per_second": [9.0, 41.26]}
    canned.answers["GET", "/v1/stats"] = Answer({"t": [9_990.0, 9_998.0], "models": {"m": rates}})
    header, _, row = run("list").stdout.splitlines()
    assert "  Requests       Tokens/s  " in header and "  3 + 2 waiting  41.3      " in row
    canned.answers["GET", "/v1/stats"] = Answer({"t": [9_000.0], "models": {"m": rates}})
    assert "Requests" not in run("list").stdout, "old rates are not those of now"


def test_a_termination_and_a_log_can_be_json(canned: Canned, run: Run) -> None:
    canned.answers["DELETE", "/v1/models/m"] = Answer(None)
    assert json.loads(run("terminate", "m", "--json").stdout) == {"model_uid": "m", "terminated": True}
    canned.answers["GET", "/v1/models/m/logs"] = Answer("one\ntwo\n", content_type="text/plain")
    assert json.loads(run("logs", "m", "--json").stdout) == {"model_uid": "m", "lines": ["one", "two"]}
    assert run("logs", "m", "--json", "-f").exit_code == 2


def test_a_log_is_read_from_the_home_without_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    for number, text in ((1, "one\ntwo\n"), (2, "three\n")):
        log = tmp_path / "logs" / f"r{number:010}.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(text)
        link_log(log, "mine", number)
    result = CliRunner().invoke(cli, ["logs", "mine", "--lines", "1"])
    assert (result.exit_code, result.stdout) == (
        0,
        "==> mine-rep1 <==\ntwo\n==> mine-rep2 <==\nthree\n",
    ) and "No server runs" in result.stderr
    shown = json.loads(CliRunner().invoke(cli, ["logs", "mine-rep1", "--json"]).stdout)
    assert shown == {"model_uid": "mine-rep1", "lines": ["one", "two"]}
    result = CliRunner().invoke(cli, ["logs", "min"])
    assert result.exit_code == 1 and "Did you mean mine?" in result.stderr
    result = CliRunner().invoke(cli, ["logs", "--server"])
    assert result.exit_code == 1 and "there is no" in result.stderr
    (tmp_path / "logs" / "server.log").write_text("one\ntwo\n")
    assert CliRunner().invoke(cli, ["logs", "--server", "--lines", "1"]).stdout == "two\n"
