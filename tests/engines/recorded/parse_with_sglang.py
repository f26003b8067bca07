"""Parses texts with SGLang's own parsers, whole and in pieces; runs in vLLM's environment, which has most imports.

    python parse_with_sglang.py FOLDER < CASES > RESULTS

FOLDER has the unpacked wheel of SGLang, which can't be installed without a GPU. CASES is JSON with ``special`` (texts
that are one token), ``tool``, ``tools`` and ``reasoning`` (parser -> text), ``variables`` of the chat template, and
``lines`` (words of command lines). A result of ``tools`` has two lists of calls, one of ``reasoning`` two pairs of
reasoning and text: of the whole text, and joined from a stream of which each word is a piece. ``lines`` gets what
SGLang's argument parser made of ``--quantization``.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import json
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

WORD = r"[A-Za-z0-9]+|[^A-Za-z0-9]"


class Stub(types.ModuleType):
    """A module whose names are empty classes."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def provide_modules(folder: Path) -> None:
    """SGLang's package without its start-up code, and stand-ins for modules that parsing does not use."""
    package: Any = types.ModuleType("sglang")
    package.__path__ = [str(folder / "sglang")]
    package.__version__ = "0"
    sys.modules["sglang"] = package
    for name in ("IPython", "IPython.display", "triton", "triton.language"):
        sys.modules[name] = Stub(name)
        sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name].__path__ = []
    orjson: Any = types.ModuleType("orjson")
    orjson.loads = json.loads
    orjson.dumps = lambda value: json.dumps(value).encode()
    orjson.JSONDecodeError = json.JSONDecodeError
    sys.modules["orjson"] = orjson


def main() -> None:
    provide_modules(Path(sys.argv[1]))
    cases = json.load(sys.stdin)
    results: dict[str, Any] = {"tools": {}, "reasoning": {}}
    for kind, parse in (("tools", tools), ("reasoning", reasoning)):
        for name, text in cases[kind].items():
            try:
                results[kind][name] = parse(name, text, cases)
            except Exception:  # noqa: BLE001 -- each parser has its own errors
                results[kind][name] = traceback.format_exc()
    results["lines"] = [parsed_line(words) for words in cases["lines"]]
    sys.stdout.write(json.dumps(results, ensure_ascii=False, indent=1) + "\n")


def request_of(cases: dict[str, Any]) -> Any:
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

    messages = [{"role": "user", "content": "What is the weather?"}]
    return ChatCompletionRequest(
        model="m", messages=messages, tools=[cases["tool"]], chat_template_kwargs=cases["variables"]
    )


def pieces(text: str, special: list[str]) -> list[str]:
    """The tokens of a text: special ones, words, and the other characters."""
    return re.findall("|".join([*map(re.escape, special), WORD]), text, re.DOTALL)


def tools(name: str, text: str, cases: dict[str, Any]) -> Any:
    from sglang.srt.function_call.function_call_parser import FunctionCallParser

    given = request_of(cases).tools
    _, found = FunctionCallParser(given, name).parse_non_stream(text)
    whole = [{"name": call.name, "arguments": call.parameters} for call in found]
    parser, streamed = FunctionCallParser(given, name), dict[int, dict[str, str]]()
    parts = [parser.parse_stream_chunk(piece) for piece in pieces(text, cases["special"])]
    for _, calls in [*parts, parser.parse_stream_end()]:
        for call in calls:
            known = streamed.setdefault(call.tool_index, {"name": "", "arguments": ""})
            known["name"] += call.name or ""
            known["arguments"] += call.parameters or ""
    return whole, [streamed[index] for index in sorted(streamed)]


def reasoning(name: str, text: str, cases: dict[str, Any]) -> Any:
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    def parser(stream: bool) -> Any:
        return ReasoningParser(name, stream_reasoning=stream, force_reasoning=True, request=request_of(cases))

    reader = parser(stream=True)
    parts = [reader.parse_stream_chunk(piece) for piece in pieces(text, cases["special"])]
    parts.append(reader.parse_stream_end())
    return list(parser(stream=False).parse_non_stream(text)), [
        "".join(part or "" for part in joined) for joined in zip(*parts, strict=True)
    ]


def parsed_line(words: list[str]) -> str | None:
    """The method of packing that the command line sets, as SGLang's argument parser reads it."""
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    method: str | None = parser.parse_args(words).quantization
    return method


if __name__ == "__main__":
    main()
