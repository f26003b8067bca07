"""Checks the keys and values of `logit_bias`, which engines pass over, or read in different ways."""

from __future__ import annotations

import re

from xinference.engines.dialect import Dialect
from xinference.gateway.canonical_fields import invalid, unsupported
from xinference.gateway.request_document import RequestDocument
from xinference.protocol.field_types import MAX_INT32
from xinference.protocol.requests import Request

FIELD = "logit_bias"
_TOKEN = re.compile(r"[0-9]{1,10}")
#: What a parser of numbers may read as one, such as " 5" and "-1".
_NUMBER = re.compile(r"\s*[+-]?\d*\s*")
#: OpenAI's value for a token that never appears.
NEVER = -100


def check_biases(request: Request, document: RequestDocument, dialect: Dialect) -> None:
    """Check that each key is a token, and replace `false` by the number for a token that never appears.

    Raises:
        Refusal: 400, naming the key.
    """
    biases = getattr(request, FIELD, None)
    if not biases:
        return
    for key, value in biases.items():
        _check_key(key, dialect)
        if value is True:
            raise invalid(FIELD, f"the value of {key[:100]!r} is a number from -100 to 100, or false.")
    if any(value is False for value in biases.values()):
        numbers = {key: NEVER if value is False else value for key, value in document.fields[FIELD].items()}
        document.put(document.fields, FIELD, numbers)


def _check_key(key: str, dialect: Dialect) -> None:
    if _TOKEN.fullmatch(key) and int(key) <= MAX_INT32:
        return
    if _NUMBER.fullmatch(key):
        raise invalid(FIELD, f"{key[:100]!r} is not the id of a token: 0 to {MAX_INT32}, in digits only.")
    if not dialect.biases_texts:
        cause = f"{key[:100]!r} is not the id of a token, and {dialect.engine} reads no texts here."
        raise unsupported(FIELD, cause, "POST /tokenize returns the ids of a text's tokens.")
