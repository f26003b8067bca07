from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from tests.cli.conftest import Run
from xinference.cli.main import load
from xinference.config import Settings
from xinference.errors import Problem
from xinference.server_options import ServerOptions
from xinference.worker import WorkerOptions


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerOptions]:
    """The options that the server was run with, in place of the server."""
    calls: list[ServerOptions] = []

    def run(options: ServerOptions) -> int:
        calls.append(options)
        return 98

    monkeypatch.setitem(sys.modules, "xinference.server", SimpleNamespace(run=run))
    return calls


def test_serve_hands_on_its_options_and_the_exit_status(run: Run, started: list[ServerOptions]) -> None:
    result = run(
        "serve",
        "-H",
        "0.0.0.0",
        "-p",
        "1234",
        "--log-level",
        "debug",
        "--allow-unauthenticated",
        "--home",
        "h",
        "--gateway-workers",
        "2",
        "--allow-origin",
        "http://localhost:3000",
        "--allow-origin",
        "https://chat.example",
        "--log-format",
        "json",
        "--access-log",
        "--allow-media-urls",
        "a.b,*.c.d",
        "--prefix-isolation",
        "key",
        "--no-shared-beginnings",
        "--cluster",
    )
    assert result.exit_code == 98
    assert started == [
        ServerOptions(
            host="0.0.0.0",
            port=1234,
            log_level="DEBUG",
            allow_unauthenticated=True,
            home="h",
            gateway_workers=2,
            allow_origin="http://localhost:3000,https://chat.example",
            log_format="json",
            access_log=True,
            allow_media_urls="a.b,*.c.d",
            prefix_isolation="key",
            no_shared_beginnings=True,
            cluster=True,
        )
    ]


def test_a_server_in_the_background_gets_the_same_options(
    run: Run, started: list[ServerOptions], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    processes: list[tuple[str, list[str]]] = []

    def ensure_server(settings: Settings, announce: object, *, command: list[str]) -> bool:
        processes.append((settings.url, command))
        return len(processes) == 1

    monkeypatch.setattr("xinference.client.local_server.ensure_server", ensure_server)
    line = ["serve", "--background", "-H", "::1", "-p", "7", "--home", str(tmp_path), "--gateway-workers", "2"]
    flags = ("--log-level", "debug", "--allow-unauthenticated", "--allow-origin", "*", "--access-log",
        "--no-shared-beginnings")  # fmt: skip
    result = run(*line, *flags, "--allow-media-urls", "a.b")
    assert (result.exit_code, result.stdout, started) == (0, "http://[::1]:7\n", [])
    assert "xinference stop" in result.stderr
    ((url, command),) = processes
    assert url == "http://[::1]:7"
    assert command[3:] == [
        "--host", "::1", "--port", "7", "--log-level", "DEBUG", "--allow-unauthenticated",
        "--gateway-workers", "2", "--allow-origin", "*", "--access-log", "--allow-media-urls", "a.b",
        "--no-shared-beginnings",
    ]  # fmt: skip
    assert "which is not a host" in run(*line, "--allow-media-urls", "https://a.b").stderr
    assert "runs already" in run(*line).stderr


@pytest.mark.parametrize(
    ("flags", "keeps"), [(("-p", "7"), False), (("-H", "0.0.0.0"), True), (("--cluster",), True)]
)  # the port only chooses the server
def test_a_server_that_runs_already_keeps_its_options_and_serve_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: tuple[str, ...], keeps: bool
) -> None:
    monkeypatch.setattr("xinference.client.local_server.ensure_server", lambda *settings, **options: False)
    result = run("serve", "--background", "--home", str(tmp_path), *flags)
    assert "A server runs already" in result.stderr
    assert ("it keeps the options with which it was started" in result.stderr) is keeps


def test_what_serve_is_not_told_is_left_to_the_settings(run: Run, started: list[ServerOptions]) -> None:
    run("serve")
    assert started == [ServerOptions()]


def test_xinference_local_is_serve(started: list[ServerOptions]) -> None:
    result = CliRunner().invoke(load("xinference.cli.commands.serve:local"), ["-p", "7", "--log-level", "INFO"])
    assert result.exit_code == 98
    assert (started[0].port, started[0].log_level) == (7, "INFO")


def test_xinference_local_takes_what_older_versions_had(started: list[ServerOptions]) -> None:
    local = load("xinference.cli.commands.serve:local")
    result = CliRunner().invoke(local, ["-MH", "127.0.0.1", "-mp", "1"])
    assert (result.exit_code, len(started)) == (98, 1)
    assert "no effect" in result.stderr
    refused = CliRunner().invoke(local, ["--auth-config", "auth.json"])
    assert (refused.exit_code, len(started)) == (2, 1)
    assert "xinference keys" in refused.stderr


def test_a_supervisor_serves_everybody_and_takes_workers(started: list[ServerOptions]) -> None:
    result = CliRunner().invoke(
        load("xinference.cli.commands.serve:supervisor"), ["-p", "7", "--supervisor-port", "8", "--no-models"]
    )
    assert result.exit_code == 98
    assert (started[0].host, started[0].port, started[0].allow_unauthenticated) == ("0.0.0.0", 7, False)
    assert (started[0].cluster, started[0].supervisor_port, started[0].no_models) == (True, 8, True)
    assert result.stderr == "", "the log names the command for a token, and an error is not preceded by it"


def test_a_supervisor_is_told_of_a_ray_cluster_and_its_nodes(started: list[ServerOptions]) -> None:
    words = ["--ray-address", "auto", "--ray-node", "box1", "--ray-node", "zone=a", "--ray-autoscaler-seconds", "60"]
    assert CliRunner().invoke(load("xinference.cli.commands.serve:supervisor"), words).exit_code == 98
    named = (started[0].ray_address, started[0].ray_nodes, started[0].ray_autoscaler_seconds)
    assert named == ("auto", "box1,zone=a", 60.0)


def test_a_worker_that_has_not_joined_says_what_it_needs(tmp_path: Path) -> None:
    command = load("xinference.cli.commands.serve:worker")
    result = CliRunner().invoke(command, ["-e", "http://10.0.0.1:9997", "--home", str(tmp_path)])
    assert isinstance(result.exception, Problem)
    assert "--token are needed" in result.exception.cause and "cluster token create" in (result.exception.hint or "")


def test_a_worker_hands_on_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[WorkerOptions, int, Path]] = []

    def run(options: WorkerOptions, settings: Settings) -> int:
        calls.append((options, settings.worker_port, settings.home))
        return 3

    monkeypatch.setattr("xinference.worker.run", run)
    command = load("xinference.cli.commands.serve:worker")
    words = ["-e", "http://a:1", "--token", "t", "-H", "10.0.0.2", "--worker-port", "7", "--label", "gpu=h100"]
    result = CliRunner().invoke(command, [*words, "--home", str(tmp_path)])
    assert result.exit_code == 3
    assert calls == [(WorkerOptions("http://a:1", "t", "10.0.0.2", {"gpu": "h100"}), 7, tmp_path)]
    assert CliRunner().invoke(command, ["--label", "gpu"]).exit_code == 2
    for variable, token in (("", None), ("v", "v")):
        monkeypatch.setenv("XINFERENCE_JOIN_TOKEN", variable)
        CliRunner().invoke(command, ["--home", str(tmp_path)])
        assert calls[-1][0].token == token


@pytest.mark.parametrize(
    ("words", "host", "port"), [(["-p", "7"], None, 7), (["-H", "127.0.0.2", "-p", "7"], "127.0.0.2", 7)]
)
def test_options_of_a_server_without_a_command_start_one(
    run: Run, started: list[ServerOptions], words: list[str], host: str | None, port: int | None
) -> None:
    result = run(*words)
    assert result.exit_code == 98
    assert (started[0].host, started[0].port) == (host, port)
    assert "xinference serve" in result.stderr


@pytest.mark.parametrize("words", [["--log-level", "loud"], ["serve", "--log-level", "loud"]])
def test_a_log_level_that_is_none_is_a_usage_error(run: Run, started: list[ServerOptions], words: list[str]) -> None:
    assert (run(*words).exit_code, started) == (2, [])


def test_a_servers_options_before_another_command_are_an_error(run: Run, started: list[ServerOptions]) -> None:
    result = run("-p", "7", "list")
    assert (result.exit_code, started) == (1, [])
    assert "--endpoint" in result.stderr


@pytest.mark.parametrize("labels", [("gpu",), ("zone=a", "zone=b")])
def test_a_wrong_label_of_a_worker_is_refused_with_the_name_of_its_option(labels: tuple[str, ...]) -> None:
    words = [word for label in labels for word in ("--label", label)]
    result = CliRunner().invoke(load("xinference.cli.commands.serve:worker"), words)
    assert result.exit_code == 2 and "Invalid value for '--label'" in result.stderr
