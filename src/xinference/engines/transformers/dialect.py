"""The dialect of the Transformers server."""

from __future__ import annotations

import re

from xinference.engines.dialect import (
    Body,
    Dialect,
    EngineError,
    explain_context_size,
    explain_template_error,
    refuse_field,
)
from xinference.engines.transformers.metrics import METRICS
from xinference.engines.transformers.native_fields import NATIVE
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import Tokenize

ENGINE = "Transformers"
ONLY_JSON = "Use response_format with a json_schema."
#: The server's own error codes.
CODES = {
    "invalid_media": Code.INVALID_MEDIA,
    "unsupported_content": Code.UNSUPPORTED_CONTENT,
    "template_limit": Code.TEMPLATE_LIMIT,
    "constraint_too_complex": Code.CONSTRAINT_TOO_COMPLEX,
    "unsupported_dimensions": Code.UNSUPPORTED_DIMENSIONS,
}


#: The beginning of the error for a schema that the grammars cannot have; llguidance's report of several lines follows.
BAD_SCHEMA = "The schema is not valid: "
#: What precedes the fault in the report, and the line with the fault of a pattern.
_COMPILER = "failed to compile JSON schema: "
_PATTERN_FAULT = re.compile(r"^error: (.*)$", re.MULTILINE)
_UNKNOWN_KEYS = re.compile(r'^Unimplemented keys: \["(.*)"\]')
#: A rule of the grammar of calls, which is in the report if the schema is that of a tool.
_CALL_RULE = "arguments_"


def _explain(error: EngineError) -> Refusal | None:
    return (
        explain_context_size(error) or _explain_code(error) or _explain_schema(error) or explain_template_error(error)
    )


def _explain_schema(error: EngineError) -> Refusal | None:
    if not error.message.startswith(BAD_SCHEMA):
        return None
    report = error.message.removeprefix(BAD_SCHEMA)
    param = "tools" if _CALL_RULE in report else error.error.get("param") or error.prompt_field
    cause, hint = f"{param}: the schema is not valid: {_fault(report)[:300]}.", None
    if (unknown := _UNKNOWN_KEYS.match(report.rpartition(_COMPILER)[2])) is not None:
        keywords = ", ".join(unknown[1].split('", "'))
        cause = f"{param}: {ENGINE} cannot apply {keywords}."
        hint = "Leave it out, or launch the model on another engine."
    return Refusal(Code.INVALID_CONSTRAINT, cause, hint=hint, param=param)


def _fault(report: str) -> str:
    """The one sentence of a report that says what is wrong."""
    pattern = _PATTERN_FAULT.search(report)
    if pattern is not None:
        return f"a pattern: {pattern[1]}"
    return report.rpartition(_COMPILER)[2].partition("\n")[0]


def _explain_code(error: EngineError) -> Refusal | None:
    code = CODES.get(str(error.error.get("code")))
    return None if code is None else Refusal(code, error.message, param=error.error.get("param") or error.prompt_field)


def text_without_pieces(body: Body, request: Tokenize) -> None:
    """Check a text to tokenize: the server reads each form of it, but returns no texts of tokens."""
    if request.return_token_strs or request.with_pieces:
        raise Refusal(Code.UNSUPPORTED_FIELD, f"{ENGINE} returns no texts of tokens.", param="return_token_strs")
    if request.content is None and request.prompt is None and request.messages is None:
        raise Refusal(Code.INVALID_REQUEST, "prompt is required.", param="prompt")


DIALECT = Dialect(
    engine=ENGINE,
    fields={
        "text": text_without_pieces,
        "guided_regex": refuse_field("guided_regex", ENGINE, ONLY_JSON),
        "guided_choice": refuse_field("guided_choice", ENGINE, ONLY_JSON),
        "guided_grammar": refuse_field("guided_grammar", ENGINE, ONLY_JSON),
    },
    explain=_explain,
    completion_tokens=16,
    computes_prompts_in_order=True,
    native=NATIVE,
    metrics=METRICS,
)
