"""Vectors of the length that a request names: llama.cpp ignores ``dimensions``. Pure."""

from __future__ import annotations

import base64
import math
from array import array
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal


def cut_vectors(body: bytes, *, wanted: int, uid: str) -> bytes:
    """The answer with the first numbers of each vector, scaled to the length 1.

    Raises:
        Refusal: 400: the model's vectors have fewer numbers.
    """
    answer: dict[str, Any] = msgspec.json.decode(body)
    for item in answer["data"]:
        vector = item["embedding"]
        numbers = _decoded(vector) if isinstance(vector, str) else vector
        if len(numbers) < wanted:
            raise Refusal(
                Code.UNSUPPORTED_DIMENSIONS,
                f"The model {uid!r} returns vectors of at most {len(numbers)} numbers, not {wanted}.",
                param="dimensions",
            )
        if len(numbers) == wanted:
            return body
        cut = _scaled(numbers[:wanted])
        item["embedding"] = _encoded(cut) if isinstance(vector, str) else cut
    return msgspec.json.encode(answer)


def _scaled(numbers: Any) -> list[float]:
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def _decoded(text: str) -> array[float]:
    return array("f", base64.b64decode(text))


def _encoded(numbers: list[float]) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode("ascii")
