"""The command line of each packed format is one that the engine's own parser accepts."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.engines.packed_plans import PackedLaunch, packed_launches
from tests.support.built_environments import environments
from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.engines.registry import all_engines
from xinference.engines.sglang.engine import OPTIONS as SGLANG_OPTIONS
from xinference.engines.sglang.packings import ONLINE as SGLANG_ONLINE
from xinference.engines.sglang.packings import VERSION as SGLANG
from xinference.engines.sglang.parsers import REASONING_PARSERS, TOOL_PARSERS
from xinference.engines.vllm import parsers as vllm_parsers
from xinference.engines.vllm.packings import ONLINE as VLLM_ONLINE
from xinference.environments.environments import Environments
from xinference.hardware.devices import read_host

RECORDED = json.loads((Path(__file__).parent / "recorded" / f"sglang-{SGLANG}.json").read_text(encoding="utf-8"))
PARSE_VLLM = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
from vllm.utils.argparse_utils import FlexibleArgumentParser
lines = json.load(sys.stdin)
parser = make_arg_parser(FlexibleArgumentParser())
parsed = [parser.parse_args(words) for words in lines]
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
print(json.dumps({
    "parsed": [args.quantization for args in parsed],
    "methods": QUANTIZATION_METHODS,
    "tools": ToolParserManager.list_registered(),
    "reasoning": ReasoningParserManager.list_registered(),
}))
"""


def recorded_parser() -> argparse.ArgumentParser:
    """A parser with SGLang's options, of the kinds and choices that were recorded from its own."""
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    kinds = {"int": int, "float": float}
    for name, kind in SGLANG_OPTIONS.kinds.items():
        option = f"--{name.replace('_', '-')}"
        if kind in ("flag", "switch"):
            parser.add_argument(option, action="store_true" if kind == "flag" else argparse.BooleanOptionalAction)
        elif kind == "list":
            parser.add_argument(option, nargs="*")
        else:
            parser.add_argument(option, type=kinds.get(kind, str), choices=RECORDED.get(name))
    return parser


@in_one_test("launch", packed_launches("SGLang"), ids=lambda launch: launch.title)
def test_sglangs_options_and_choices_accept_the_line(launch: PackedLaunch) -> None:
    parsed = recorded_parser().parse_args([word.replace("{port}", "1") for word in launch.argv])
    assert parsed.tp_size == 2


def test_a_choice_that_sglang_does_not_have_would_be_seen() -> None:
    with pytest.raises(argparse.ArgumentError, match="invalid choice"):
        recorded_parser().parse_args(["--quantization", "nothing"])


def test_the_names_of_sglangs_methods_and_parsers_are_its_own() -> None:
    known = set(RECORDED["quantization"])
    assert {method.flag for method in SGLANG_ONLINE.methods.values()} | SGLANG_ONLINE.for_packed <= known
    assert set(RECORDED["tool_call_parser"]) == TOOL_PARSERS
    assert set(RECORDED["reasoning_parser"]) == REASONING_PARSERS


def test_both_engines_have_every_packed_format_in_the_list() -> None:
    launches = {name: {launch.title for launch in packed_launches(name)} for name in ("vLLM", "SGLang")}
    both = {"pytorch fp8", "pytorch Int8", "pytorch Int4", "gptq Int4", "awq Int4", "fp8 FP8", "fp4 MXFP4", "fp4 NVFP4"}
    assert both <= launches["vLLM"] & launches["SGLang"]
    assert "bnb 4-bit" in launches["SGLang"]


@pytest.mark.live
@pytest.mark.timeout(300)
def test_vllms_own_parser_accepts_the_line_of_each_format_and_knows_each_method() -> None:
    python = vllm_python()
    if python is None:
        pytest.skip("the environment of vLLM is not built here (xinference env install vLLM)")
    launches = packed_launches("vLLM")
    lines = [[word.replace("{port}", "1") for word in launch.argv] for launch in launches]
    ended = subprocess.run(
        [str(python), "-I", "-c", PARSE_VLLM],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    printed = json.loads(ended.stdout.splitlines()[-1])
    expected = {launch.title: value for launch, value in zip(launches, printed["parsed"], strict=True)}
    assert expected["pytorch fp8"] == expected["pytorch none fp8"] == "fp8_per_tensor"
    assert expected["pytorch Int8"] is None
    methods = set(printed["methods"])
    assert {method.flag for method in VLLM_ONLINE.methods.values()} | VLLM_ONLINE.for_packed <= methods
    assert "bitsandbytes" not in methods
    assert set(printed["tools"]) == vllm_parsers.TOOL_PARSERS
    assert set(printed["reasoning"]) == vllm_parsers.REASONING_PARSERS


def vllm_python() -> Path | None:
    """The interpreter of vLLM's environment, if it is built here."""
    spec, folder = all_engines()["vLLM"].environment(read_host()), environments()
    if spec is None or folder is None or not folder.is_dir():
        return None
    return Environments(Settings(home=folder.parent)).find(spec)
