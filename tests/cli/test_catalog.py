from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.canned import Answer, Canned, problem
from tests.cli.conftest import Run


def version(model_format: str, size: int | str, *quantizations: str) -> dict[str, Any]:
    return {
        "model_name": "llama",
        "model_format": model_format,
        "model_size_in_billions": size,
        "quantizations": list(quantizations),
    }


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
    result = run("engine", "-n", "llama")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["ggufv2", "7", "llama.cpp", "yes", "Q4_0,", "Q8_0"],
        ["ggufv2", "7", "vLLM", "no", "Q4_0,", "Q8_0", "no", "GPU"],
        ["ggufv2", "1_8", "llama.cpp", "yes", "Q4_0"],
        ["ggufv2", "1_8", "vLLM", "no", "Q4_0", "no", "GPU"],
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


def test_registrations_are_a_table_or_json(canned: Canned, run: Run) -> None:
    families = [
        {
            "model_name": "llama",
            "is_builtin": True,
            "model_lang": ["en"],
            "model_ability": ["chat", "tools"],
            "context_length": 4096,
            "model_specs": [version("ggufv2", 7), version("pytorch", 7), version("pytorch", 13)],
        }
    ]
    canned.answers["GET", "/v1/model_registrations/LLM"] = Answer(families)
    row = run("registrations").stdout.splitlines()[2]
    assert row.split() == ["LLM", "llama", "en", "chat,", "tools", "4096", "7,", "13", "True"]
    assert json.loads(run("registrations", "--json").stdout) == families
