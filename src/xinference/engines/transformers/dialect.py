"""The dialect of the Transformers server."""

from __future__ import annotations

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


def _explain(error: EngineError) -> Refusal | None:
    return explain_context_size(error) or _explain_code(error) or explain_template_error(error)


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
