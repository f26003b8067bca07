"""The schemas of answers that llama.cpp follows: its grammars pass over every keyword that they do not have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from xinference.engines.dialect import Body, parse_schema
from xinference.engines.llama_cpp.schema_forms import check_form
from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

#: Keywords of values that the grammars do not have.
_PASSED_OVER = (
    "not", "if", "dependentRequired", "dependentSchemas", "dependencies", "uniqueItems", "contains", "multipleOf",
    "propertyNames", "patternProperties", "minProperties", "maxProperties",
)  # fmt: skip
#: Has the library of completions follow what it can of a schema.
_LENIENT = {"x-guidance": {"lenient": True, "coerce_one_of": True}}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_ALTERNATIVES = ("anyOf", "oneOf")
#: Values with which a keyword has no effect.
_WITHOUT_EFFECT: tuple[Any, ...] = (None, False, 0, {}, [])
#: Members with schemas by name, with a list of schemas, and with a schema or a list of them.
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties")
#: The classes of characters of a pattern that the grammars take as letters; white space is a blank.
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}


def follow_format(body: Body, value: Any) -> None:
    """Check the schema of `response_format`, and pass the format of a completion as `json_schema`."""
    if not isinstance(value, dict):
        return
    kind, is_chat = value.get("type"), "messages" in body
    where = "response_format.json_schema" if kind == "json_schema" else "response_format"
    holder = value.get("json_schema") if kind == "json_schema" else value
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if isinstance(holder, dict) and isinstance(schema, dict):
        schema = _nearest_schema(holder.get("strict"), schema, f"{where}.schema")
        holder = {**holder, "schema": schema}
        body["response_format"] = {**value, "json_schema": holder} if kind == "json_schema" else holder
    if is_chat:
        return
    del body["response_format"]
    if kind in ("json_object", "json_schema"):
        where = f"{where}.schema" if schema else "response_format"
        body["json_schema"] = schema_of_completion(schema or {"type": "object"}, where)
    elif kind != "text":
        raise Refusal(Code.UNSUPPORTED_FIELD, f"{where}: a completion of llama.cpp has no {kind}.", param=where)


def _nearest_schema(strict: Any, schema: Body, where: str) -> Body:
    """The schema in a form that llama.cpp follows.

    Only `strict` requires that the answer follows all of it. Without it, the engine follows what it can, as in OpenAI's
    API.
    """
    try:
        return applicable_schema(schema, where)
    except Refusal:
        if strict is True:
            raise
        return schema


def follow_guided(body: Body, value: Any) -> None:
    """Pass `guided_json` as `json_schema`."""
    schema = parse_schema("guided_json", body.pop("guided_json"))
    if isinstance(schema, dict):
        convert = applicable_schema if "messages" in body else partial(schema_of_completion, strict=True)
        schema = convert(schema, "guided_json")
    body["json_schema"] = schema


def follow_any_object(body: Body, value: Any) -> None:
    """Pass `guided_json_object` as a format."""
    if body.pop("guided_json_object"):
        body["response_format"] = {"type": "json_object"}
        follow_format(body, body["response_format"])


def schema_of_completion(schema: Body, where: str, *, strict: bool = False) -> Body:
    """The schema of a completion in a form that llama.cpp follows.

    Its grammars come from another library than those of chats. With a schema that this library refuses, the answer has
    no constraint at all, so it is asked to pass over the keywords that it does not have.

    Args:
        where: the field with the schema, for the refusal.
        strict: the answer must follow all of it.

    Raises:
        Refusal: 400, a keyword with a wrong value, or one that llama.cpp would pass over.
    """
    check_form(schema, where)
    return (applicable_schema(schema, where) if strict else schema) | _LENIENT


def applicable_schema(schema: Body, where: str) -> Body:
    """The schema in a form that llama.cpp follows.

    Args:
        where: the field with the schema, for the refusal.

    Raises:
        Refusal: 400, a keyword that llama.cpp would pass over.
    """

    def refuse(what: str) -> Refusal:
        return Refusal(
            Code.INVALID_CONSTRAINT,
            f"{where}: llama.cpp cannot apply {what}, so that the answer would not follow the schema.",
            hint='Leave it out, send no "strict": true, or launch the model on another engine.',
            param=where,
        )

    plain: Body = _applicable(schema, refuse)
    return plain


Refuse = Callable[[str], Refusal]


def _applicable(node: Any, refuse: Refuse) -> Any:
    if not isinstance(node, dict):
        return node
    node = _without_wrapper(node)
    _check_keywords(node, refuse)
    _check_combinations(node, refuse)
    changed = dict(node)
    for name in _MAPS:
        if isinstance(node.get(name), dict):
            changed[name] = {key: _applicable(inner, refuse) for key, inner in node[name].items()}
    for name in (*_LISTS, *_SCHEMAS):
        inner = node.get(name)
        if isinstance(inner, list):
            changed[name] = [_applicable(one, refuse) for one in inner]
        elif name in _SCHEMAS and isinstance(inner, dict):
            changed[name] = _applicable(inner, refuse)
    if isinstance(node.get("pattern"), str):
        pattern = plain_pattern(node["pattern"])
        if pattern is None:
            raise refuse(f"the pattern {node['pattern'][:100]!r}")
        changed["pattern"] = pattern
    return changed


def _without_wrapper(node: Body) -> Body:
    """The schema without an `allOf` of one part, as some clients wrap a reference to add a description."""
    parts = node.get("allOf")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        return node
    rest = {name: value for name, value in node.items() if name != "allOf"}
    return node if rest.keys() & parts[0].keys() else rest | parts[0]


def _check_keywords(node: Body, refuse: Refuse) -> None:
    types = _types(node)
    for name in _PASSED_OVER:
        if name in node and _has_effect(name, node[name], types):
            raise refuse(name)
    for name in ("unevaluatedProperties", "unevaluatedItems"):
        if node.get(name) not in (None, True, {}):
            raise refuse(name)
    bounds = [name for name in _BOUNDS if name in node]
    if bounds and ("integer" not in types or "number" in types):
        raise refuse(f"{bounds[0]} to numbers that are not integers")
    if "pattern" in node and (node.get("minLength") or node.get("maxLength") is not None):
        raise refuse("a length beside a pattern")
    if node.get("prefixItems") and isinstance(node.get("items"), dict):
        raise refuse("items beside prefixItems")


def _has_effect(name: str, value: Any, types: list[Any]) -> bool:
    if name == "multipleOf" and value == 1:
        return types != ["integer"]
    return name in ("not", "maxProperties") or value not in _WITHOUT_EFFECT


def _types(node: Body) -> list[Any]:
    kind = node.get("type")
    return kind if isinstance(kind, list) else [kind]


def _check_combinations(node: Body, refuse: Refuse) -> None:
    parts = node.get("allOf")
    if isinstance(parts, list) and parts:
        # With either of the two, the grammar is that of an object and has no part of the allOf.
        is_object = "properties" in node or node.get("additionalProperties", True) is not True
        if is_object or not all(map(_can_be_joined, parts)):
            raise refuse("this allOf")
        return
    properties = node.get("properties")
    if any(name in node for name in _ALTERNATIVES):
        if properties or node.get("required"):
            raise refuse("anyOf or oneOf beside properties")
        return
    required = node.get("required")
    known = properties if isinstance(properties, dict) else {}
    names = required if isinstance(required, list) else []
    missing = [name for name in names if not isinstance(name, str) or name not in known]
    if missing:
        raise refuse(f"required to {str(missing[0])[:100]!r}, which is not in properties")


def _can_be_joined(part: Any) -> bool:
    return isinstance(part, dict) and any(name in part for name in ("properties", "enum", "$ref"))


def plain_pattern(pattern: str) -> str | None:
    r"""A pattern without the classes ``\d``, ``\w`` and ``\s``; None: the grammars would pass over it.

    They have only patterns of the whole text, and no other escapes, assertions or references.
    """
    if not pattern.startswith("^") or not _ends_with_anchor(pattern):
        return None
    plain, in_class, at = "", False, 0
    while at < len(pattern):
        char, following = pattern[at], pattern[at + 1 : at + 2]
        if char == "\\":
            if following.isalnum() and following not in _CLASSES:
                return None
            letters = _CLASSES.get(following)
            plain += char + following if letters is None else letters if in_class else f"[{letters}]"
            at += 2
            continue
        if char == "(" and not in_class and following == "?" and pattern[at + 2 : at + 3] != ":":
            return None
        in_class = (in_class or char == "[") and char != "]"
        plain += char
        at += 1
    return None if in_class else plain


def _ends_with_anchor(pattern: str) -> bool:
    text = pattern[:-1]
    escapes = len(text) - len(text.rstrip("\\"))
    return pattern.endswith("$") and escapes % 2 == 0
