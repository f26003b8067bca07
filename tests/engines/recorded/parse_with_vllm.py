"""Parses texts with vLLM's own parsers, whole and as a stream of tokens; runs in vLLM's environment.

    python parse_with_vllm.py < CASES > RESULTS

CASES is JSON with ``special`` (texts that are one token), ``tool``, ``tools`` and ``reasoning`` (parser -> text), and
``variables`` of the chat template. A result of ``tools`` has two lists of calls, one of ``reasoning`` two pairs of
reasoning and text: of the whole text, and joined from the pieces of the stream, of which each word is one.
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager


def main() -> None:
    cases = json.load(sys.stdin)
    tokenizer = tokenizer_of([*cases["tools"].values(), *cases["reasoning"].values()], cases["special"])
    messages = [{"role": "user", "content": "What is the weather?"}]
    request = ChatCompletionRequest(
        model="m", messages=messages, tools=[cases["tool"]], tool_choice="auto",
        chat_template_kwargs=cases["variables"],
    )  # fmt: skip
    results: dict[str, dict[str, Any]] = {"tools": {}, "reasoning": {}}
    for kind, parse in (("tools", tools), ("reasoning", reasoning)):
        for name, text in cases[kind].items():
            try:
                results[kind][name] = parse(name, text, tokenizer, request, cases["variables"])
            except Exception:  # noqa: BLE001 -- each parser has its own errors
                results[kind][name] = traceback.format_exc()
    sys.stdout.write(json.dumps(results) + "\n")


WORD = r"[A-Za-z0-9]+|[^A-Za-z0-9]"


def tokenizer_of(texts: list[str], special: list[str]) -> Any:
    """A tokenizer whose tokens are the words and the other characters of the texts."""
    words = sorted({word for text in texts for word in re.findall(WORD, text, re.DOTALL)})
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"(?m){WORD}|\\n"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.add_tokens(special, special_tokens=True)
    return fast


def pieces(tokenizer: Any, text: str) -> tuple[list[int], list[str]]:
    """The tokens of a text, and the text that each adds."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    before, added = "", []
    for end in range(1, len(ids) + 1):
        now = tokenizer.decode(ids[:end], skip_special_tokens=False, spaces_between_special_tokens=False)
        added.append(now[len(before) :])
        before = now
    return ids, added


def tools(name: str, text: str, tokenizer: Any, request: Any, variables: dict[str, Any]) -> Any:
    parser_class = ToolParserManager.get_tool_parser(name)
    whole = parser_class(tokenizer, request.tools).extract_tool_calls(text, request)
    calls = [{"name": call.function.name, "arguments": call.function.arguments} for call in whole.tool_calls]
    return calls, streamed_calls(parser_class(tokenizer, request.tools), text, tokenizer, request)


def streamed_calls(parser: Any, text: str, tokenizer: Any, request: Any) -> list[dict[str, str]]:
    calls: dict[int, dict[str, str]] = {}
    ids, added = pieces(tokenizer, text)
    for number, piece in enumerate(added):
        delta = parser.extract_tool_calls_streaming(
            "".join(added[:number]), "".join(added[: number + 1]), piece, ids[:number], ids[: number + 1],
            [ids[number]], request,
        )  # fmt: skip
        for call in (delta.tool_calls if delta else None) or ():
            known = calls.setdefault(call.index, {"name": "", "arguments": ""})
            known["name"] += (call.function.name or "") if call.function else ""
            known["arguments"] += (call.function.arguments or "") if call.function else ""
    if calls and (rest := parser.get_remaining_unstreamed_args()):
        calls[max(calls)]["arguments"] += rest
    return [calls[index] for index in sorted(calls)]


def reasoning(name: str, text: str, tokenizer: Any, request: Any, variables: dict[str, Any]) -> Any:
    parser_class = ReasoningParserManager.get_reasoning_parser(name)
    whole = parser_class(tokenizer, chat_template_kwargs=variables).extract_reasoning(text, request)
    parser = parser_class(tokenizer, chat_template_kwargs=variables)
    ids, added = pieces(tokenizer, text)
    thought, answer = "", ""
    for number, piece in enumerate(added):
        delta = parser.extract_reasoning_streaming(
            "".join(added[:number]), "".join(added[: number + 1]), piece, ids[:number], ids[: number + 1],
            [ids[number]],
        )  # fmt: skip
        if delta is not None:
            thought += delta.reasoning or ""
            answer += delta.content or ""
    return [list(whole), [thought, answer]]


if __name__ == "__main__":
    main()
