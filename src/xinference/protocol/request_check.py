"""Decodes and checks the body of a request: its fields, its media, and the constraints of its answer."""

from __future__ import annotations

import contextlib
import re
from typing import Any, get_args

import msgspec
from msgspec import UNSET, Struct, UnsetType

from xinference.error_codes import Code
from xinference.protocol.addresses import address_refusal, may_contain_address, refuse_addresses
from xinference.protocol.common_chats import common_chat
from xinference.protocol.constraint_limits import (
    MAX_ALTERNATIVES,
    MAX_BYTES,
    MAX_TOOL_PARTS,
    limit_refusal,
)
from xinference.protocol.errors import Refusal
from xinference.protocol.exact_requests import EXACT
from xinference.protocol.field_types import JsonObject
from xinference.protocol.grammar_limits import check_grammar
from xinference.protocol.literal_values import literal_values
from xinference.protocol.message_forms import (
    PartType,
    Tool,
)
from xinference.protocol.regex_limits import check_regex
from xinference.protocol.requests import (
    Chat,
    Completion,
    Embeddings,
    Generation,
    Request,
)
from xinference.protocol.schema_limits import SchemaLimits


def check(decoder: msgspec.json.Decoder[Request], body: bytes) -> Request:
    """Decode the fields of `body` that the gateway needs, and check them.

    A common chat is decoded once. So is a body that has only known fields, at every depth, by a form that accepts media
    only in known fields. Any other body is decoded by the form of the known fields, and its other fields are searched
    for addresses.

    Raises:
        Refusal: 400, with the position of a JSON error, or with the wrong field.
    """
    kind = decoder.type
    try:
        if not body.isascii():
            # msgspec does not validate the strings that it skips, and the engine gets all of them.
            body.decode()
        may_be_exact = True
        if kind is Chat:
            try:
                chat = common_chat(body)
            except msgspec.ValidationError as error:
                # An error of the body itself is about a field that no form has, or that all require.
                may_be_exact = _PLACE in str(error)
            else:
                if chat is not None:
                    return chat
        request: Any = _decode(decoder, body, may_be_exact=may_be_exact)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error), kind) from None
    except msgspec.DecodeError as error:
        raise _not_json(body, str(error)) from None
    except UnicodeDecodeError as error:
        byte, at = error.object[error.start], error.start
        raise _bad_json(f"The body is not UTF-8: byte 0x{byte:02x} at byte {at}.") from None
    except RecursionError:
        raise _bad_json(TOO_DEEP) from None
    if request.has_further_fields:
        if may_contain_address(body):
            refuse_addresses(body)
        _check_constraints(request, body)
    elif (
        kind is not Chat
        or request.tools
        or request.functions
        or request.response_format
        or (request.guided_json or request.guided_regex or request.guided_choice or request.guided_grammar)
    ):  # conditions without a call: the check of a plain chat costs only these
        _check_constraints(request, body)
    if kind is Completion:
        _check_one_kind(request.prompt, "prompt")
    elif kind is Embeddings:
        _check_one_kind(request.input, "input")
    checked: Request = request
    return checked


def _decode(decoder: msgspec.json.Decoder[Request], body: bytes, *, may_be_exact: bool) -> Request:
    """The request of a body that is no common chat."""
    if may_be_exact:
        with contextlib.suppress(msgspec.ValidationError):  # raised again below, unless it is about an unknown field
            return EXACT[decoder.type].decode(body)
    return decoder.decode(body)


TOO_DEEP = "The body's JSON is nested too deeply."

# -- constraints of an answer -----------------------------------------------------------------------------------


class _Tools(Struct):
    """The tools of any body."""

    tools: JsonObject = UNSET
    functions: JsonObject = UNSET


_TOOLS = msgspec.json.Decoder(_Tools)
_TOOL_LIST = msgspec.json.Decoder(list[Tool])


def _check_constraints(request: Request, body: bytes) -> None:
    """Check the schemas, regular expressions and grammars of a request.

    Raises:
        Refusal: 400, with the field and the limit.
    """
    limits = SchemaLimits()
    for name in ("response_format", "text", "output_config", "output_format"):
        _check_object(getattr(request, name, UNSET), name, limits)
    if isinstance(request, Generation):
        _check_guided(request, limits)
    has_tools = getattr(request, "tools", None) or getattr(request, "functions", None)
    # The schemas of an exact form are simple and flat, and a body up to this size cannot contain too many.
    if has_tools and (request.has_further_fields or len(body) > MAX_BYTES):
        _check_tools(_TOOLS.decode(body), is_exact=not request.has_further_fields)


def _check_tools(tools_of_body: _Tools, *, is_exact: bool) -> None:
    limits = SchemaLimits(MAX_TOOL_PARTS)
    for group, value in (("tools", tools_of_body.tools), ("functions", tools_of_body.functions)):
        if not value or (is_exact and len(bytes(value)) <= MAX_BYTES):
            continue
        tools = _TOOL_LIST.decode(value) if bytes(value) != b"null" else []
        if len(tools) > MAX_ALTERNATIVES:
            raise limit_refusal(group, "tools", MAX_ALTERNATIVES)
        for n, tool in enumerate(tools):
            _check_object(tool.parameters, f"{group}[{n}].parameters", limits)
            _check_object(tool.input_schema, f"{group}[{n}].input_schema", limits)
            if tool.function is not None:
                _check_object(tool.function.parameters, f"{group}[{n}].function.parameters", limits)


def _check_guided(request: Generation, limits: SchemaLimits) -> None:
    schema = request.guided_json
    if schema:
        value = bytes(schema)
        if value.startswith(b'"'):
            limits.check_text(msgspec.json.decode(value), "guided_json")
        else:
            _check_object(schema, "guided_json", limits)
    if request.guided_regex is not None:
        check_regex(request.guided_regex, "guided_regex")
    if request.guided_grammar is not None:
        check_grammar(request.guided_grammar, "guided_grammar")
    if request.guided_choice is not None and sum(map(len, request.guided_choice)) > MAX_BYTES:
        raise limit_refusal("guided_choice", "characters", MAX_BYTES)


def _check_object(value: msgspec.Raw | UnsetType, name: str, limits: SchemaLimits) -> None:
    if not value:
        return
    text = bytes(value)
    if text.startswith(b"{"):
        limits.check_json(text, name)
    elif text != b"null":
        json_type = type(msgspec.json.decode(text)).__name__
        raise _invalid(f"{name}: expected `object`, got `{JSON_TYPES.get(json_type, json_type)}`.", name)


# -- refusals ---------------------------------------------------------------------------------------------------


def _check_one_kind(inputs: Any, name: str) -> None:
    """Check that a list has only texts, only token ids, or only lists of token ids, of which none is empty."""
    if not isinstance(inputs, list):
        return
    kinds = set(map(type, inputs))
    if len(kinds) > 1 and (int in kinds or list in kinds):
        raise _invalid(f"{name} mixes texts and tokens: all its items must have the same type.", name)
    if list in kinds and [] in inputs:
        raise _invalid(f"{name}[{inputs.index([])}] has no tokens.", name)


#: Maximum number of characters of a wrong value that are shown.
MAX_VALUE = 100
JSON_TYPES = {"str": "str", "list": "array", "NoneType": "null"}
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
#: What precedes the place of a wrong value within the body.
_PLACE = " - at `$"
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
#: A text that ends with the first half of a pair: the decoder takes it for the end of the body.
_HALF_CHARACTER = re.compile(rb'(\\u[dD][89abAB][0-9a-fA-F]{2})[^\\"]{0,5}"')
_BYTE = re.compile(r"^(?P<what>.*) \(byte (?P<at>\d+)\)$")


def wrong_field(message: str, form: Any = None) -> Refusal:
    """Convert "Expected `str`, got `int` - at `$.messages[0].role`" to a refusal that names the field.

    Args:
        form: the form that the value does not have; None: the refusal lists no values.
    """
    match = _AT.match(message)
    assert match is not None
    what, path = match["what"], match["path"] or ""
    if what.startswith("Expected `str` matching regex '^data:"):
        return address_refusal(path)
    if what.startswith("Expected `str` matching regex '^(data:"):
        return _invalid(f"{path}: media must be base64 or a data: URI.", path)
    if what.startswith("Invalid enum value") and path.endswith(".type"):
        return _refused_part(what.removeprefix("Invalid enum value "), path, literal_values(form, path))
    if what.startswith("Invalid enum value") and (values := literal_values(form, path)):
        given = what.removeprefix("Invalid enum value ")
        return _invalid(f"{path}: invalid value {_shorten(given)}, expected one of {', '.join(values)}.", path)
    missing = _MISSING.match(what)
    if missing:
        param = f"{path}.{missing['name']}" if path else missing["name"]
        return _invalid(f"{param} is required.", param)
    if not path:
        return _invalid(f"The body must be a JSON object: {_lower(what)}.", None)
    return _invalid(f"{path}: {_lower(what)}.", path)


def unreadable(error: Exception) -> Refusal:
    """The refusal of a body with a part that is JSON and cannot be read: a number out of range, or deep nesting."""
    if isinstance(error, RecursionError):
        return _bad_json(TOO_DEEP)
    return _bad_json(f"The body has a value that cannot be read: {_lower(str(error).partition(' - at ')[0])}.")


def _refused_part(kind: str, path: str, types: tuple[str, ...]) -> Refusal:
    known = types or get_args(PartType)
    cause = f"{path}: content of the type {kind[:100]} is not accepted."
    return Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=f"Accepted types: {', '.join(known)}.", param=path)


def _not_json(body: bytes, message: str) -> Refusal:
    if not body.strip():
        return _bad_json("The body is empty; it must be a JSON object.")
    match = _BYTE.match(message)
    if match is None and (half := _HALF_CHARACTER.search(body)) is not None:
        escape = half[1].decode()
        return _bad_json(f"The body is not valid JSON: a text ends with {escape}, which is half of a surrogate pair.")
    if match is None:
        return _bad_json(f"The body is not valid JSON: {_lower(message)} (byte {len(body)}).")
    what, at = match["what"].removeprefix("JSON is malformed: "), int(match["at"])
    line, column = body.count(b"\n", 0, at) + 1, at - body.rfind(b"\n", 0, at)
    return _bad_json(f"The body is not valid JSON: {what} at line {line}, column {column} (byte {at}).")


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _invalid(cause: str, param: str | None) -> Refusal:
    return Refusal(Code.INVALID_REQUEST, cause, param=param)


def _bad_json(cause: str) -> Refusal:
    return Refusal(Code.INVALID_JSON, cause)
