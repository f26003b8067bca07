"""Values of llama.cpp's options: every value that the check accepts is one that llama.cpp's own parameters take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cases import in_one_test
from xinference.engines.llama_cpp.engine import PROGRAM, LlamaCpp
from xinference.engines.llama_cpp.option_policy import POLICY
from xinference.engines.llama_cpp.option_values import convert
from xinference.errors import Problem

MODES = "enum:MODE_NONE=0|MODE_LAYER=1|MODE_ROW=2"
#: Applies each [name, value] of its input to parameters of its own, and prints those that llama.cpp does not take.
APPLY = """
import json, runpy, sys
import xllamacpp
apply = runpy.run_path(sys.argv[1])["apply"]
for name, value in json.load(sys.stdin):
    try:
        apply(xllamacpp.CommonParams(), name, value)
    except Exception as error:
        print(name, value, repr(error))
"""
SAMPLES: dict[str, list[Any]] = {
    "bool": [True, False],
    "int": [0, 1, 512],
    "float": [0, 0.5],
    "str": ["", "a"],
    "dict": [{"enable_thinking": True}],
    "list:str": [["a", "b"]],
    "list:int": [[1], [1, 2], "1,2"],
    "list:float": [[1], [0.5, 0.5], "3,1"],
    "list:bool": [[True, False]],
}


@pytest.fixture(scope="module")
def described() -> dict[str, str]:
    """The parameters that the installed xllamacpp describes."""
    printed = subprocess.run(LlamaCpp.describe_argv, capture_output=True, text=True, check=True, timeout=120)
    known: dict[str, str] = json.loads(printed.stdout)["options"]
    return known


def members(kind: str) -> list[str]:
    return [member.partition("=")[0] for member in kind.removeprefix("list:").removeprefix("enum:").split("|")]


def samples(name: str, kind: str) -> Iterator[Any]:
    """Values of an option: all members of an enum, and examples of other types."""
    if "enum:" in kind:
        for member in members(kind):
            yield [member] if kind.startswith("list") else member
    elif name.endswith("mparams.path"):
        yield "/w/draft.gguf"
    else:
        yield from SAMPLES.get(kind, [])


@pytest.mark.process
def test_every_value_that_the_check_accepts_is_one_that_llama_cpp_takes(described: dict[str, str]) -> None:
    accepted: list[tuple[str, Any]] = []
    draft = {"speculative.draft.mparams.path": "/w/draft.gguf"}
    # Names of devices depend on the machine: `server.py` explains one that is not there.
    for name in sorted((POLICY.allowed & described.keys()) - {"mmproj_device", "speculative.draft.devices"}):
        for value in samples(name, described[name]):
            others = draft if name == "speculative.types" else {}
            try:
                checked = LlamaCpp().check_options({**others, name: value}, described)
            except Problem as problem:
                assert problem.code == "bad_option" and problem.cause, name
            else:
                accepted += [(each, checked[each]) for each in (name,) if each in checked]
    assert len({name for name, _ in accepted}) > 150
    ran = subprocess.run(
        [sys.executable, "-c", APPLY, str(PROGRAM)],
        input=json.dumps(accepted),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ran.stdout == ""


@pytest.mark.process
def test_every_kind_of_speculation_is_one_that_the_check_accepts(described: dict[str, str]) -> None:
    names = members(described["speculative.types"])
    assert {"COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE", "COMMON_SPECULATIVE_TYPE_DRAFT_MTP"} <= set(names)
    assert not any(name.endswith("COUNT") for name in names)
    for value in (["NGRAM_SIMPLE"], "ngram-simple", ["ngram_simple"], [6], "6"):
        checked = LlamaCpp().check_options({"speculative.types": value}, described)
        assert checked == {"speculative.types": ["COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE"]}


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ({"flash_attn": "on"}, {"flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_ENABLED"}),
        ({"flash_attn": True}, {"flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_ENABLED"}),
        ({"flash_attn": "off"}, {"flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}),
        ({"cache_type_k": "q8_0"}, {"cache_type_k": "GGML_TYPE_Q8_0"}),
        ({"numa": "distribute"}, {"numa": "GGML_NUMA_STRATEGY_DISTRIBUTE"}),
        ({"pooling": "mean"}, {"pooling_type": "LLAMA_POOLING_TYPE_MEAN"}),
        ({"reasoning_format": "deepseek-legacy"}, {"reasoning_format": "COMMON_REASONING_FORMAT_DEEPSEEK_LEGACY"}),
        ({"split_mode": 1}, {"split_mode": "LLAMA_SPLIT_MODE_LAYER"}),
        ({"cpuparams.priority": "realtime"}, {"cpuparams.priority": "GGML_SCHED_PRIO_REALTIME"}),
        ({"seed": -1}, {"sampling.seed": 2**32 - 1}),
        ({"tensor_split": "3,1"}, {"tensor_split": [3.0, 1.0]}),
        ({"use_mmap": False, "use_mlock": True}, {"load_mode": "LLAMA_LOAD_MODE_MLOCK"}),
    ],
)
def test_names_of_llama_server_and_llama_cpp_python_are_accepted(
    described: dict[str, str], options: dict[str, Any], checked: dict[str, Any]
) -> None:
    assert LlamaCpp().check_options(options, described) == checked


@pytest.mark.process
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache_type_k": "q2_k"}, "llama.cpp accepts f32, f16, q4_0"),
        ({"split_mode": "half"}, "llama.cpp accepts none, layer, row, tensor"),
        ({"split_mode": 9}, "llama.cpp accepts none"),
        ({"speculative.types": ["nothing"]}, "llama.cpp accepts none, draft_simple"),
        ({"speculative.types": ["COUNT"]}, "llama.cpp accepts none"),
        ({"n_batch": 2**40}, "not a number of llama.cpp's range"),
        ({"n_ctx": "abc"}, "--n_ctx is 'abc', and llama.cpp requires an integer."),
        ({"tensor_split": ["a"]}, "requires a number"),
        ({"antiprompt": [5, ["a"]]}, "requires a text"),
    ],
)
def test_a_value_that_llama_cpp_would_not_take_is_refused_with_those_that_it_takes(
    described: dict[str, str], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(Problem) as refused:
        LlamaCpp().check_options(options, described)
    assert refused.value.code == "bad_option" and said in refused.value.cause


@in_one_test("option", ["n_ctx", "cache_type_k"])
def test_an_option_without_its_value_is_refused_with_the_form_that_has_one(
    described: dict[str, str], option: str
) -> None:
    with pytest.raises(Problem, match=f"--{option} is true[,;]") as refused:
        LlamaCpp().check_options({option: True}, described)
    assert refused.value.hint == f"Write --{option} VALUE: an option without a value is true."


@in_one_test(
    ("value", "kind", "converted"),
    [
        ("row", MODES, "MODE_ROW"),
        ("MODE_ROW", MODES, "MODE_ROW"),
        (2, MODES, "MODE_ROW"),
        (["none", "row"], f"list:{MODES}", ["MODE_NONE", "MODE_ROW"]),
        ("none,row", f"list:{MODES}", ["MODE_NONE", "MODE_ROW"]),
        ("a,b", "list:str", ["a,b"]),
        (5, "float", 5.0),
        (5, "str", "5"),
    ],
)
def test_a_value_gets_the_type_of_its_option(value: Any, kind: str, converted: Any) -> None:
    assert convert("o", "o", value, kind) == converted


def test_a_value_that_llama_cpp_refuses_at_its_start_is_explained() -> None:
    line = "llama.cpp does not take ['x'] for --fit_params_target (an integer is required)"
    assert LlamaCpp().explain(["loading", line]) == f"{line}."
