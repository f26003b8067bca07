"""SGLang's dialect."""

from __future__ import annotations

import re

from xinference.engines.dialect import (
    Body,
    Dialect,
    EngineError,
    context_refusal,
    prompt_refusal,
    rename_field,
    rename_schema,
    text_as_prompt,
)
from xinference.engines.prefill import CONTINUE, continuing
from xinference.engines.sglang.metrics import METRICS
from xinference.engines.sglang.native_fields import NATIVE
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Tokenize

#: The error for a prompt that is too long. Its limit includes one token of the answer, that of the gateway does not.
PROMPT_TOKENS = re.compile(r"The input \((\d+) tokens\) is longer")
TOO_LONG = "longer than the model's context length"
REGEX_SPECIAL = frozenset(r"\.^$*+?{}[]|()")


def _explain(error: EngineError) -> Refusal | None:
    tokens = PROMPT_TOKENS.search(error.message)
    if error.context_length and tokens:
        return prompt_refusal(error, error.context_length, tokens[1])
    return context_refusal(error, error.message) if TOO_LONG in error.message else None


def choice_as_regex(body: Body, value: list[str]) -> None:
    """Pass the choices as a regular expression."""
    escaped = ("".join(f"\\{c}" if c in REGEX_SPECIAL else c for c in choice) for choice in value)
    body["regex"] = f"({'|'.join(escaped)})"
    del body["guided_choice"]


def one_text_as_prompt(body: Body, request: Tokenize) -> None:
    """Pass a text in llama.cpp's form in vLLM's; SGLang reads no messages here, and returns no texts of tokens."""
    if request.messages is not None or request.return_token_strs or request.with_pieces:
        param = "messages" if request.messages is not None else "return_token_strs"
        raise Refusal(Code.UNSUPPORTED_FIELD, f"SGLang's /tokenize has no {param}.", param=param)
    text_as_prompt(body, request)


DIALECT = Dialect(
    engine="SGLang",
    fields={
        "text": one_text_as_prompt,
        "guided_json": rename_schema("json_schema"),
        "guided_regex": rename_field("guided_regex", "regex"),
        "guided_choice": choice_as_regex,
        "guided_grammar": rename_field("guided_grammar", "ebnf"),
    },
    exchange=continuing(CONTINUE),
    explain=_explain,
    has_priority_field=True,
    native=NATIVE,
    metrics=METRICS,
)
