"""Checks llama.cpp's own fields whose faults its server passes over, and converts a schema for completions."""

from __future__ import annotations

from xinference.engines.dialect import Body
from xinference.engines.llama_cpp.answer_schemas import applicable_schema, schema_of_completion
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

#: The samplers by their names, and by the letters of the short form.
SAMPLERS = (
    "penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature", "infill", "adaptive_p",
)  # fmt: skip
LETTERS = "edskypmxtia"
#: Further names that the server reads, without dashes and underscores.
_OTHER_NAMES = ("nucleus", "temp", "typ")
_NAMES = frozenset({*(name.replace("_", "") for name in SAMPLERS), *_OTHER_NAMES})
#: Names of fields that are not those of their samplers.
_MEANT = {"typical_p": "typ_p", "typical": "typ_p", "repeat_penalty": "penalties", "repetition_penalty": "penalties"}


def rewrite_native(fields: Body, is_chat: bool) -> Body:
    """The fields that the engine gets in another form.

    Args:
        fields: the request's fields of the engine, with the types of their table.

    Raises:
        Refusal: 400, naming the field and the value that the server would pass over.
    """
    if fields.get("samplers"):
        _check_samplers(fields["samplers"])
    schema = fields.get("json_schema")
    if not isinstance(schema, dict):
        return {}
    if is_chat:
        applicable_schema(schema, "json_schema")
        return {}
    return {"json_schema": schema_of_completion(schema, "json_schema", strict=True)}


def _check_samplers(samplers: str | list[str]) -> None:
    if isinstance(samplers, str):
        for letter in samplers:
            if letter not in LETTERS:
                cause = f"samplers: {letter!r} is no sampler, expected some of the letters {LETTERS}."
                raise Refusal(Code.INVALID_REQUEST, cause, hint="Send a list of names.", param="samplers")
        return
    for n, name in enumerate(samplers):
        if not _is_sampler(name):
            meant = _MEANT.get(name.lower())
            cause = f"samplers[{n}]: invalid value {name[:100]!r}, expected one of {', '.join(SAMPLERS)}."
            hint = f"Use {meant}." if meant else "Leave it out."
            raise Refusal(Code.INVALID_REQUEST, cause, hint=hint, param=f"samplers[{n}]")


def _is_sampler(name: str) -> bool:
    """Whether the server reads this name: it takes dashes for underscores, and both may be missing."""
    lower = name.lower()
    return lower.replace("-", "_") in SAMPLERS or ("-" not in lower and "_" not in lower and lower in _NAMES)
