"""A recorded answer in each form that is mapped gives the same call and reasoning, as a stream and whole."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.engines.recorded import parse_with_vllm_path
from tests.engines.recorded.streams import (
    ANSWER,
    BY_TOKENS,
    CALL,
    REASONING,
    REASONING_BY_TOKENS,
    SPECIAL,
    THINKING,
    THOUGHT,
    TOOL,
    TOOL_CALLS,
)
from tests.engines.test_packed_command_lines import vllm_python
from xinference.catalog.registry import builtin_families
from xinference.engines.transformers.server.tools import ToolCall, ToolCallParser
from xinference.engines.vllm.parsers import NOT_STREAMED, PARSERS

FAMILIES = [family for family in builtin_families().values() if family.model_type == "LLM"]


def mapped(kind: str) -> set[str]:
    """The parsers of vLLM that a built-in family gets."""
    chosen = PARSERS.tool_parser if kind == "tools" else PARSERS.reasoning_parser
    return {parser for family in FAMILIES if (parser := chosen(family)) is not None}


def test_every_parser_that_a_family_gets_has_a_recorded_answer() -> None:
    assert mapped("tools") - BY_TOKENS <= TOOL_CALLS.keys()
    assert mapped("reasoning") - REASONING_BY_TOKENS <= REASONING.keys()
    assert not mapped("tools") & NOT_STREAMED


@pytest.fixture(scope="module")
def parsed() -> dict[str, dict[str, Any]]:
    """What vLLM's parsers make of the recorded answers."""
    python = vllm_python()
    if python is None:
        pytest.skip("the environment of vLLM is not built here (xinference env install vLLM)")
    cases = {"special": SPECIAL, "tool": TOOL, "tools": TOOL_CALLS, "reasoning": REASONING, "variables": THINKING}
    ended = subprocess.run(
        [str(python), "-I", str(parse_with_vllm_path())],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    results: dict[str, dict[str, Any]] = json.loads(ended.stdout.splitlines()[-1])
    return results


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("parser", TOOL_CALLS)
def test_vllms_parser_reads_the_call_whole_and_streamed(parsed: dict[str, dict[str, Any]], parser: str) -> None:
    assert not isinstance(parsed["tools"][parser], str), parsed["tools"][parser]
    whole, streamed = (
        [{**call, "arguments": json.loads(call["arguments"])} for call in calls] for calls in parsed["tools"][parser]
    )
    assert whole == [CALL]
    assert streamed == ([] if parser in NOT_STREAMED else whole)


@pytest.mark.live
@pytest.mark.timeout(600)
@pytest.mark.parametrize("parser", REASONING)
def test_vllms_parser_splits_the_reasoning_whole_and_streamed(parsed: dict[str, dict[str, Any]], parser: str) -> None:
    assert not isinstance(parsed["reasoning"][parser], str), parsed["reasoning"][parser]
    whole, streamed = parsed["reasoning"][parser]
    assert whole == streamed
    # The tool parser of Kimi K3 takes the marks of the answer away.
    answer = f"<|open|>response<|sep|>{ANSWER}<|close|>response<|sep|>" if parser == "kimi_k3" else ANSWER
    assert [part.strip() for part in whole] == [THOUGHT, answer]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_transformers_server_reads_the_call_whole_and_streamed(size: int) -> None:
    text, parser = f"Let me see.\n{TOOL_CALLS['hermes']}", ToolCallParser()
    shown, calls = "", list[ToolCall]()
    for start in range(0, len(text), size):
        more, found = parser.add(text[start : start + size])
        shown, calls = shown + more, calls + found
    shown += parser.finish()
    assert shown.strip() == "Let me see."
    assert [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls] == [CALL]
