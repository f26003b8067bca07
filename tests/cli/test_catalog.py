from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run
from tests.support.ports import free_port
from xinference.store.database import Store
from xinference.store.launch_history import LaunchHistory


def row(size: int | str, quantization: str, engine: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "model_format": "ggufv2",
        "model_size_in_billions": size,
        "quantization": quantization,
        "engine": engine,
        "ok": reason is None,
        "reason": reason,
    }


ROWS = [
    row(7, "Q4_0", "llama.cpp"),
    row(7, "Q8_0", "llama.cpp"),
    row(7, "Q4_0", "vLLM", "no GPU"),
    row(7, "Q8_0", "vLLM", "no GPU"),
    row("1_8", "Q4_0", "llama.cpp"),
    row("1_8", "Q4_0", "vLLM", "no GPU"),
]


@pytest.fixture(autouse=True)
def engines(canned: Canned) -> None:
    canned.answers["GET", "/v1/engines/llama"] = Answer(ROWS)


def test_engines_are_a_table_with_a_line_for_each_spec_and_engine(canned: Canned, run: Run) -> None:
    result = run("engine", "-n", "llama", "--all")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["llama.cpp", "ggufv2", "7B", "yes", "Q4_0,", "Q8_0"],
        ["vLLM", "ggufv2", "7B", "no", "Q4_0,", "Q8_0", "no", "GPU"],
        ["llama.cpp", "ggufv2", "1.8B", "yes", "Q4_0"],
        ["vLLM", "ggufv2", "1.8B", "no", "Q4_0", "no", "GPU"],
    ]
    assert canned.asked_for("GET", "/v1/engines/llama")[0].query == "detailed=true"


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (["-s", "7"], ROWS[:4]),
        (["-q", "q8_0"], [ROWS[1], ROWS[3]]),
        (["-f", "ggufv2", "-s", "1_8"], ROWS[4:]),
        (["-f", "pytorch"], []),
        (["-en", "LLAMA.CPP"], [ROWS[0], ROWS[1], ROWS[4]]),
    ],
)
def test_engines_are_narrowed_down_by_what_is_wanted(run: Run, wanted: list[str], left: list[dict[str, Any]]) -> None:
    assert json.loads(run("engine", "-n", "llama", *wanted, "--json").stdout) == left


def test_an_unknown_engine_is_named(run: Run) -> None:
    result = run("engine", "-n", "llama", "-en", "X")
    assert result.exit_code == 1
    assert 'Xinference does not support this inference engine "X".' in result.stderr
    assert "llama.cpp, vLLM" in result.stderr


def test_no_engine_at_all_exits_with_1_after_the_reasons(run: Run) -> None:
    result = run("engine", "-n", "llama", "-en", "vllm")
    assert result.exit_code == 1
    assert "no GPU" in result.stdout and result.stderr.startswith("Error: ")


def test_an_unknown_model_is_the_servers_problem(canned: Canned, run: Run) -> None:
    canned.answers["GET", "/v1/engines/lama"] = problem(404, "model_not_found", "No lama.", hint="Did you mean llama?")
    assert "Did you mean llama?" in run("engine", "-n", "lama").stderr


def test_what_vllm_runs_is_a_table_or_json(canned: Canned, run: Run) -> None:
    models = {"chat": ["llama", "qwen"], "generate": ["opt"]}
    canned.answers["GET", "/v1/models/vllm-supported"] = Answer(models)
    rows = [line.split() for line in run("vllm-models").stdout.splitlines()[2:]]
    assert rows == [["chat", "llama"], ["chat", "qwen"], ["generate", "opt"]]
    assert json.loads(run("vllm-models", "--json").stdout) == models


def test_without_more_only_the_versions_that_run_are_shown(canned: Canned, run: Run) -> None:
    rows = [*ROWS, row(70, "Q4_0", "llama.cpp", "too big"), row(7, "Q4_0", "Transformers"), row(3, "Q4_0", "llama.cpp")]
    canned.answers["GET", "/v1/engines/llama"] = Answer(rows)
    result = run("engine", "llama")
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["7B", "ggufv2", "llama.cpp,", "Transformers", "Q4_0"],
        ["7B", "ggufv2", "llama.cpp", "Q8_0"],
        ["1.8B,", "3B", "ggufv2", "llama.cpp", "Q4_0"],
    ]
    assert result.stderr == "1 of 5 versions can't run on this machine; --all shows why.\n"


def test_a_size_is_found_as_people_write_it(run: Run) -> None:
    assert json.loads(run("engine", "llama", "-s", "1.8B", "--json").stdout) == ROWS[4:]
    assert json.loads(run("engine", "llama", "-s", "7b", "--json").stdout) == ROWS[:4]


@pytest.fixture
def no_server(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The home of a machine on which no server runs."""
    monkeypatch.delenv("XINFERENCE_ENDPOINT")
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path))
    monkeypatch.setenv("XINFERENCE_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("XINFERENCE_PORT", str(free_port()))
    return tmp_path


def test_the_engines_of_a_model_are_listed_without_a_server(no_server: Path, run: Run) -> None:
    rows = json.loads(run("engine", "smollm2-instruct", "-en", "llama.cpp", "--json").stdout)
    assert rows and all(row["engine"] == "llama.cpp" for row in rows)
    assert any(row["ok"] and row["model_format"] == "ggufv2" for row in rows)
    unknown = run("engine", "smolm2-instruct")
    assert unknown.exit_code == 1 and "smollm2-instruct" in unknown.stderr
    assert list(no_server.iterdir()) == []


def test_the_models_of_vllm_are_listed_without_a_server(no_server: Path, run: Run) -> None:
    assert "qwen3" in json.loads(run("vllm-models", "--json").stdout)["chat"]


def test_the_launches_of_this_home_are_listed_without_a_server(no_server: Path, run: Run) -> None:
    assert run("history").stderr == "No launch is recorded.\n"
    with closing(Store(no_server / "xinference.db")) as store:
        LaunchHistory(store).begun("m", '{"model_name": "smollm2-instruct"}', 1.0)
    (record,) = json.loads(run("history", "--json").stdout)
    assert (record["model_uid"], record["status"]) == ("m", "stopped")
    assert "The next server starts the stopped models again." in run("history").stderr
    assert json.loads(run("history", "--failed", "--json").stdout) == []


@pytest.mark.parametrize("command", [("engine", "qwen3"), ("vllm-models",), ("history",)])
def test_a_server_that_is_named_must_answer(
    no_server: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("XINFERENCE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    result = run(*command)
    assert result.exit_code == 1 and "No server answers" in result.stderr
