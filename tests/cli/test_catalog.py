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


ENGINES = {
    "llama.cpp": [version("ggufv2", 7, "Q4_0", "Q8_0"), version("ggufv2", "1_8", "Q4_0")],
    "vLLM": "There is no GPU.",
}


@pytest.fixture(autouse=True)
def engines(canned: Canned) -> None:
    canned.answers["GET", "/v1/engines/llama"] = Answer(ENGINES)


def test_engines_are_a_table_with_reasons_below(run: Run) -> None:
    result = run("engine", "-n", "llama")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[2:]] == [
        ["llama", "llama.cpp", "ggufv2", "7", "Q4_0,", "Q8_0"],
        ["llama", "llama.cpp", "ggufv2", "1_8", "Q4_0"],
    ]
    assert result.stderr == "vLLM: There is no GPU.\n"


@pytest.mark.parametrize(
    ("wanted", "versions"),
    [
        (["-s", "7"], [version("ggufv2", 7, "Q4_0", "Q8_0")]),
        (["-q", "Q8_0"], [version("ggufv2", 7, "Q8_0")]),
        (["-f", "ggufv2", "-s", "1_8"], [version("ggufv2", "1_8", "Q4_0")]),
        (["-f", "pytorch"], []),
    ],
)
def test_engines_are_narrowed_down_by_what_is_wanted(run: Run, wanted: list[str], versions: Any) -> None:
    answer = json.loads(run("engine", "-n", "llama", *wanted, "--json").stdout)
    assert answer == {"llama.cpp": versions, "vLLM": "There is no GPU."}


def test_an_engine_is_found_whatever_its_case(run: Run) -> None:
    assert json.loads(run("engine", "-n", "llama", "-en", "LLAMA.CPP", "--json").stdout).keys() == {"llama.cpp"}


def test_an_unknown_engine_is_named(run: Run) -> None:
    result = run("engine", "-n", "llama", "-en", "X")
    assert result.exit_code == 1
    assert 'Xinference does not support this inference engine "X".' in result.stderr
    assert "llama.cpp, vLLM" in result.stderr


def test_no_engine_at_all_exits_with_1_after_the_reasons(run: Run) -> None:
    result = run("engine", "-n", "llama", "-en", "vllm")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("vLLM: There is no GPU.\nError: ")


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
