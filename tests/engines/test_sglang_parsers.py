"""SGLang's own parsers read a recorded answer in each form, as a stream and whole, with the same result.

The results are recorded, because SGLang can't be installed without a GPU. Where XINFERENCE_TEST_SGLANG names a folder
with its unpacked wheel, and vLLM's environment is built, they are made anew and compared, and SGLang's own argument
parser reads the command line of each packed format:

    pip download --no-deps --dest DIR sglang==0.5.23 && unzip -d FOLDER DIR/sglang-*.whl
    XINFERENCE_TEST_SGLANG=FOLDER pytest tests/engines/test_sglang_parsers.py

`python -m tests.engines.test_sglang_parsers FOLDER` records them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines.packed_plans import packed_launches
from tests.engines.recorded.sglang_streams import SGLANG_REASONING, SGLANG_TOOL_CALLS
from tests.engines.recorded.streams import ANSWER, CALL, SPECIAL, THINKING, THOUGHT, TOOL
from tests.engines.test_packed_command_lines import vllm_python
from tests.support.cases import in_one_test
from xinference.catalog.registry import builtin_families
from xinference.engines.sglang.packings import VERSION
from xinference.engines.sglang.parsers import PARSERS

FOLDER = Path(__file__).parent / "recorded"
RECORDED = FOLDER / f"sglang-{VERSION}-parsed.json"
LAUNCHES = packed_launches("SGLang")
LINES = {launch.title: [word.replace("{port}", "1") for word in launch.argv] for launch in LAUNCHES}
FAMILIES = [family for family in builtin_families().values() if family.model_type == "LLM"]


def parse(folder: Path, python: Path) -> dict[str, Any]:
    """What SGLang's parsers make of the cases, with the cases."""
    cases = {
        "special": SPECIAL, "tool": TOOL, "tools": SGLANG_TOOL_CALLS, "reasoning": SGLANG_REASONING,
        "variables": THINKING, "lines": list(LINES.values()),
    }  # fmt: skip
    ended = subprocess.run(
        [str(python), "-I", str(FOLDER / "parse_with_sglang.py"), str(folder)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    parsed = json.loads(ended.stdout)
    kinds = (("tools", SGLANG_TOOL_CALLS), ("reasoning", SGLANG_REASONING))
    return {
        **{
            kind: {name: {"text": text, "parsed": parsed[kind][name]} for name, text in texts.items()}
            for kind, texts in kinds
        },
        "lines": dict(zip(LINES, parsed["lines"], strict=True)),
    }


def recorded() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return read


def test_every_parser_that_a_family_gets_has_a_recorded_answer() -> None:
    assert {parser for family in FAMILIES if (parser := PARSERS.tool_parser(family))} <= SGLANG_TOOL_CALLS.keys()
    assert {parser for family in FAMILIES if (parser := PARSERS.reasoning_parser(family))} <= SGLANG_REASONING.keys()


@in_one_test("parser", SGLANG_TOOL_CALLS)
def test_sglangs_parser_reads_the_call_whole_and_streamed(parser: str) -> None:
    row = recorded()["tools"][parser]
    assert row["text"] == SGLANG_TOOL_CALLS[parser], "the record is of another text"
    whole, streamed = (
        [{**call, "arguments": json.loads(call["arguments"])} for call in calls] for calls in row["parsed"]
    )
    assert whole == streamed == [CALL]


@in_one_test("parser", SGLANG_REASONING)
def test_sglangs_parser_splits_the_reasoning_whole_and_streamed(parser: str) -> None:
    row = recorded()["reasoning"][parser]
    assert row["text"] == SGLANG_REASONING[parser], "the record is of another text"
    for parts in row["parsed"]:
        assert [part.strip() for part in parts] == [THOUGHT, ANSWER]


@pytest.mark.live
@pytest.mark.timeout(600)
def test_sglangs_parsers_give_what_is_recorded_and_its_argument_parser_accepts_each_packed_line() -> None:
    folder, python = os.environ.get("XINFERENCE_TEST_SGLANG"), vllm_python()
    if folder is None or python is None:
        pytest.skip("XINFERENCE_TEST_SGLANG names no folder with SGLang's wheel, or vLLM's environment is not built")
    parsed = parse(Path(folder), python)
    accepted = parsed.pop("lines")
    assert parsed == recorded()
    for title, words in LINES.items():
        assert accepted[title] == (words[words.index("--quantization") + 1] if "--quantization" in words else None)


if __name__ == "__main__":
    interpreter = vllm_python()
    assert interpreter is not None, "the environment of vLLM is not built here (xinference env install vLLM)"
    results = parse(Path(sys.argv[1]), interpreter)
    del results["lines"]
    RECORDED.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
