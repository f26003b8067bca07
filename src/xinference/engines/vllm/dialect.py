"""vLLM's dialect."""

from __future__ import annotations

import re

from xinference.engines.dialect import (
    Dialect,
    EngineError,
    context_refusal,
    nest_field,
    prompt_refusal,
    text_as_prompt,
)
from xinference.engines.prefill import CONTINUE, NEW_ANSWER, continuing
from xinference.engines.request_schemas import refused_schema
from xinference.engines.vllm.metrics import METRICS
from xinference.engines.vllm.native_fields import NATIVE
from xinference.protocol.errors import Refusal

#: Errors for a prompt that is too long; they contain the limit and the number of tokens.
TOO_LONG = re.compile(r"maximum context length is \d+|longer than the maximum model length")
#: The error that counts the prompt's tokens. Its limit includes one token of the answer, that of the gateway does not.
PROMPT_TOKENS = re.compile(r"your prompt contains ((?:at least )?\d+)")
#: The error for a prompt that leaves no token for the answer; the gateway accepts no request for 0 tokens.
NO_TOKEN_LEFT = re.compile(r"max_(?:completion_|output_)?tokens must be at least 1, got 0\b")
#: The object with the constraints of an answer.
CONSTRAINTS = "structured_outputs"
#: The error for a schema of which no grammar can be made, without the time and the place in the source.
BAD_SCHEMA = re.compile(r"Failed to transform json schema into a grammar: (?:\[[\d:]+\] \S+:\d+: )?(.*)", re.DOTALL)


def _explain(error: EngineError) -> Refusal | None:
    if bad := BAD_SCHEMA.search(error.message):
        return refused_schema(error.request, bad[1][:300].strip())
    limit = error.context_length
    if limit and NO_TOKEN_LEFT.search(error.message):
        return prompt_refusal(error, limit, limit + 1)
    tokens = PROMPT_TOKENS.search(error.message)
    if limit and tokens:
        return prompt_refusal(error, limit, tokens[1])
    return context_refusal(error, error.message) if TOO_LONG.search(error.message) else None


DIALECT = Dialect(
    engine="vLLM",
    fields={
        "text": text_as_prompt,
        "guided_json": nest_field(CONSTRAINTS, "guided_json", "json"),
        "guided_regex": nest_field(CONSTRAINTS, "guided_regex", "regex"),
        "guided_choice": nest_field(CONSTRAINTS, "guided_choice", "choice"),
        "guided_grammar": nest_field(CONSTRAINTS, "guided_grammar", "grammar"),
    },
    exchange=continuing(CONTINUE, NEW_ANSWER),
    explain=_explain,
    completion_tokens=16,
    priority_header=b"x-vllm-priority",
    native=NATIVE,
    metrics=METRICS,
)
