"""Decodes the JSON of a model's small files, which may be missing or contain anything."""

from __future__ import annotations

from typing import Any

import msgspec


def decoded(data: bytes | None) -> Any:
    """The decoded JSON of a file; None if there is no file or it is not JSON."""
    if data is None:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def decoded_object(data: bytes | None) -> dict[str, Any]:
    """The JSON object of a file; empty if there is no file or it is not an object."""
    value = decoded(data)
    return value if isinstance(value, dict) else {}
