"""Parts of chats that the requests of a program repeat, each decoded and checked once.

A tool, a format of answers and the arguments of a chat template may have any form. Those of a common chat are JSON that
no step of the gateway changes: without null where the gateway removes it, within all limits, and without an address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from xinference.protocol.constraint_limits import MAX_ALTERNATIVES, MAX_BYTES
from xinference.protocol.errors import Refusal
from xinference.protocol.exact_requests import PlainSchema
from xinference.protocol.field_types import Name
from xinference.protocol.schema_limits import SchemaLimits

#: Characters without which a text is no address.
_OF_ADDRESSES = ":/\\"
#: Members of the arguments of a template that a chat has itself.
_OF_CHAT = ("messages", "tools")


class Function(Struct, forbid_unknown_fields=True, gc=False):
    name: Name
    description: str = ""
    parameters: PlainSchema = None
    strict: bool = False


class Tool(Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["function"]
    function: Function


_decode_tools = msgspec.json.Decoder(Annotated[list[Tool], Meta(min_length=1, max_length=MAX_ALTERNATIVES)]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class KnownTexts:
    """Remembers which JSON texts are common, by a hash.

    Python's hash of bytes has a secret key, so that nobody can make another text with the hash of a known one.
    """

    def __init__(self, is_common: Callable[[bytes], bool], maximum: int = 1024) -> None:
        """`is_common` may raise the errors of msgspec for a text that cannot be decoded, and a refusal."""
        self._is_common = is_common
        self._maximum = maximum
        self._hashes: set[int] = set()

    def has(self, raw: msgspec.Raw) -> bool:
        """Whether this text is common; it is decoded only if it is new."""
        text = bytes(raw)
        value = hash(text)
        if value in self._hashes:
            return True
        if len(text) > MAX_BYTES:  # its schemas are searched for more
            return False
        try:
            if not self._is_common(text):
                return False
        except (ValueError, RecursionError, Refusal):
            return False
        if len(self._hashes) >= self._maximum:
            self._hashes.clear()
        self._hashes.add(value)
        return True


def are_common_tools(text: bytes) -> bool:
    """Whether no step changes these tools."""
    _decode_tools(text)
    msgspec.json.decode(text)  # an engine must be able to read what the form skips, such as the number 1e999
    return True


def is_common_format(text: bytes) -> bool:
    """Whether this value of `response_format` is complete and within the limits of schemas."""
    value = _decode_object(text)
    if None in value.values():
        return False
    SchemaLimits().check_json(text, "response_format")
    kind = value.get("type")
    if kind == "json_schema":
        named = value.get("json_schema")
        return isinstance(named, dict) and None not in named.values() and isinstance(named.get("schema"), dict)
    return kind == "text" or (kind == "json_object" and isinstance(value.get("schema", {}), dict))


def are_common_arguments(text: bytes) -> bool:
    """Whether these arguments of a chat template are an object without an address and without members of a chat."""
    pending: list[Any] = [arguments := _decode_object(text)]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str) and any(character in value for character in _OF_ADDRESSES):
            return False
    return not any(name in arguments for name in _OF_CHAT)


KNOWN_TOOLS = KnownTexts(are_common_tools)
KNOWN_FORMATS = KnownTexts(is_common_format)
KNOWN_ARGUMENTS = KnownTexts(are_common_arguments)
