"""`xinference top`, and the planned memory of `xinference list`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run, Terminal
from xinference.cli.model_figures import Memory, Rates, memory_of_models
from xinference.cli.top_screen import State, screen

GIB = 1 << 30
LONG = "qwen2.5-instruct-with-a-uid-of-forty-chars"
REPLICA = {"status": "READY", "gpu_idx": [0]}
BUSY = {"in_flight": 3.0, "waiting": 2.0, "output_tokens_per_second": 41.26, "first_token_p50": 0.1234}


def instance(uid: str, **fields: Any) -> dict[str, Any]:
    return {"model_uid": uid, "model_name": uid, "model_engine": "llama.cpp", "quantization": "Q4_0",
        "context_length": 4096, "status": "READY", "problem": None, "replicas": [REPLICA],
        "memory_used_bytes": 331 << 20, "gpu_memory_used_bytes": 5 * GIB, **fields}  # fmt: skip


def owner(uid: str, planned: int | None) -> dict[str, Any]:
    return {"node": "local", "model_uid": uid, "replica": 1, "planned": planned, "measured": None}


def devices(*uids: str) -> dict[str, Any]:
    host = {"total": 16 * GIB, "free": 6 * GIB, "owners": [owner(uid, None) for uid in uids]}
    gpu = {
        "index": 0,
        "name": "G1",
        "total": 24 * GIB,
        "free": 20 * GIB,
        "utilization": 0.87,
        "temperature": 61.0,
        "power": None,
        "owners": [owner(uid, 6 * GIB) for uid in uids],
    }
    return {"node": "local", "host": host, "gpus": [gpu]}


def stats(*uids: str) -> dict[str, Any]:
    series = {name: [0.0, value] for name, value in BUSY.items()}
    return {"t": [time.time() - 2, time.time()], "all": series, "models": dict.fromkeys(uids, series),
        "host": {"cpu": [None, 0.34]}}  # fmt: skip


@pytest.fixture
def server(canned: Canned) -> Canned:
    canned.answers["GET", "/v1/models/instances"] = Answer([instance("m"), instance("idle", replicas=[])])
    canned.answers["GET", "/v1/devices"] = Answer(devices("m"))
    canned.answers["GET", "/v1/stats"] = Answer(stats("m"))
    return canned


def test_one_screen_has_the_rates_the_memory_and_the_gpus(server: Canned, run: Run) -> None:
    result = run("top", "--once")
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert lines[0].startswith(server.url) and lines[0].endswith(
        "2 models  requests: 3 + 2 waiting  41.3 tokens/s  first token: 123 ms"
    )
    assert lines[1] == "Memory: 10.0 GiB of 16.0 GiB used, CPU 34 %"
    assert lines[2] == "GPU 0 G1: 4.0 GiB of 24.0 GiB used, 87 %, 61 °C"
    assert lines[-2].split() == ["m", "1", "3", "+", "2", "waiting", "41.3", "123", "ms", "6.0", "GiB", "331", "MiB",
        "+", "5.0", "GiB", "0", "READY"]  # fmt: skip
    assert lines[-1].split()[:5] == ["idle", "-", "-", "-", "-"]
    assert run("top").stdout.splitlines()[1:] == lines[1:], "without a terminal, one screen is printed"


def test_the_figures_are_json(server: Canned, run: Run) -> None:
    shown = json.loads(run("top", "--json").stdout)
    assert [each["model_uid"] for each in shown["instances"]] == ["m", "idle"]
    assert shown["rates"] == {"all": BUSY, "models": {"m": BUSY}, "host": {"cpu": 0.34}}
    assert shown["devices"] == devices("m")


def test_a_key_without_the_scope_sees_its_models(server: Canned, run: Run) -> None:
    for path in ("/v1/devices", "/v1/stats"):
        server.answers["GET", path] = problem(403, "forbidden", "The key does not permit this.")
    shown = run("top").stdout
    assert "this key may not read them" in shown and "m " in shown
    assert json.loads(run("top", "--json").stdout)["devices"] is None


def test_a_server_that_refuses_the_key_ends_the_command(server: Canned, run: Run) -> None:
    server.answers["GET", "/v1/models/instances"] = problem(401, "missing_api_key", "A key is required.")
    result = run("top", "--once")
    assert result.exit_code == 1 and result.stderr.startswith("Error: A key is required.")


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("rows", [1, 5, 24])
def test_a_screen_is_never_larger_than_the_terminal(columns: int, rows: int) -> None:
    uids = [f"model-{number}" for number in range(40)] + [LONG]
    rates = Rates(BUSY, dict.fromkeys(uids, BUSY), {"cpu": 1.0})
    state = State("http://h" * 20, "10:00:00", [instance(uid) for uid in uids], rates, devices(*uids))
    for lines in (screen(state, columns, rows), screen(state, columns)):
        assert max(map(len, lines)) <= columns
    assert len(screen(state, columns, rows)) == rows
    assert screen(state, columns, rows)[-1].endswith("enlarge the terminal")


def test_control_characters_do_not_reach_the_terminal() -> None:
    machine = devices("m")
    machine["gpus"][0]["name"] = "a\x1b[2Jb"
    state = State("http://h", "10:00:00", [instance("m\x1b[2J")], Rates(), machine)
    assert "\x1b" not in "".join(screen(state, 80))


@pytest.mark.process
@pytest.mark.parametrize("end", ["q", "\x03"])
def test_a_key_ends_the_live_screen_and_gives_the_terminal_back(
    server: Canned, terminal: Callable[..., Terminal], end: str
) -> None:
    at = terminal("top", stdout_is_terminal=True)
    at.until("\x1b[?1049h")
    at.until("READY")
    if end == "q":
        at.type(end)
    else:
        at.interrupt()
    at.until("\x1b[?1049l")
    assert at.end()[0] == 0
    assert "Traceback" not in at.seen


def test_the_list_shows_planned_memory_beside_measured(server: Canned, run: Run) -> None:
    header, _, row, _ = run("list").stdout.splitlines()
    assert "  Memory             Planned  " in header and "  331 MiB + 5.0 GiB  6.0 GiB  " in row
    server.answers["GET", "/v1/devices"] = problem(403, "forbidden", "The key does not permit this.")
    assert "Planned" not in run("list").stdout.splitlines()[0]


@pytest.mark.process
def test_the_list_holds_80_columns(server: Canned, terminal: Callable[..., Terminal]) -> None:
    server.answers["GET", "/v1/models/instances"] = Answer([instance("qwen2.5-instruct-with-a-long-name")])
    server.answers["GET", "/v1/devices"] = Answer(devices("qwen2.5-instruct-with-a-long-name"))
    server.answers["GET", "/v1/stats"] = Answer(stats("qwen2.5-instruct-with-a-long-name"))
    at = terminal("list", stdout_is_terminal=True, columns=80)
    at.until("READY")
    assert at.end()[0] == 0
    lines = at.seen.replace("\x1b[1m", "").replace("\x1b[32m", "").replace("\x1b[0m", "").split("\r\n")
    assert max(map(len, lines)) <= 80 and "Memory" in lines[0]


def test_the_memory_of_a_model_is_that_of_all_its_replicas_on_every_machine() -> None:
    def of(node: str, planned: int, measured: int | None) -> dict[str, Any]:
        return {"node": node, "model_uid": "m", "replica": 0, "planned": planned << 20, "measured": measured}

    devices = {
        "host": {"owners": [of("local", 300, 200 << 20), of("local", 300, 200 << 20)]},
        "gpus": [{"owners": [of("local", 64, None)]}],
        "workers": [
            {"host": {"owners": [of("n1", 300, 50 << 20)]}, "gpus": []},
            {"host": None, "gpus": []},
        ],
    }
    assert memory_of_models(devices) == {"m": Memory("900 MiB + 64.0 MiB", "450 MiB")}
    assert memory_of_models({}) == {}
