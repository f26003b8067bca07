"""What llama.cpp answers in another form than clients expect."""

from __future__ import annotations

import base64

import msgspec

from xinference.protocol.errors import Refusal

FLOAT_BYTES = 4


def name_stop(chunk: bytes) -> bytes:
    """llama.cpp names the stop sequence, and still says that the turn has ended by itself."""
    ended, stopped = (b'"stop_reason":"%b","stop_sequence":"' % reason for reason in (b"end_turn", b"stop_sequence"))
    return chunk.replace(ended, stopped)


def _checked_dimensions(body: bytes, wanted: int, uid: str) -> bytes:
    """llama.cpp gives a model's own vectors, whatever length is asked for."""
    data = msgspec.json.decode(body)["data"]
    vector = data[0]["embedding"] if data else []
    has = len(base64.b64decode(vector)) // FLOAT_BYTES if isinstance(vector, str) else len(vector)
    if has == wanted:
        return body
    cause = f"The model {uid!r} gives vectors of {has} numbers on llama.cpp, not {wanted}."
    raise Refusal("unsupported_dimensions", 400, cause, hint="Leave dimensions out.", param="dimensions")
