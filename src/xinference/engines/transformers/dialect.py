"""The dialect of the Transformers server."""

from __future__ import annotations

from xinference.engines.dialect import (
    Dialect,
    EngineError,
    explain_context_size,
    explain_template_error,
    refuse_field,
)
from xinference.engines.transformers.native_fields import NATIVE
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

ENGINE = "Transformers"
ONLY_JSON = "Use response_format with a json_schema."
#: The server's error codes for work that it stopped.
LIMITS = {"template_limit": Code.TEMPLATE_LIMIT, "constraint_too_complex": Code.CONSTRAINT_TOO_COMPLEX}


def _explain(error: EngineError) -> Refusal | None:
    return explain_context_size(error) or _explain_limit(error) or explain_template_error(error)


def _explain_limit(error: EngineError) -> Refusal | None:
    code = LIMITS.get(str(error.error.get("code")))
    return None if code is None else Refusal(code, error.message, param=error.error.get("param") or error.prompt_field)


DIALECT = Dialect(
    engine=ENGINE,
    fields={
        "guided_regex": refuse_field("guided_regex", ENGINE, ONLY_JSON),
        "guided_choice": refuse_field("guided_choice", ENGINE, ONLY_JSON),
        "guided_grammar": refuse_field("guided_grammar", ENGINE, ONLY_JSON),
    },
    explain=_explain,
    native=NATIVE,
)
