"""Rules for the values of allowed options; a rule returns the error of a value, or None."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

#: Completes "--option is VALUE, but …"; None: the value is allowed.
Rule = Callable[[Any], str | None]

#: A path, an address, or a text that a shell or a parser could read as one; a backslash also begins JSON's escapes.
_PATH_OR_ADDRESS = re.compile(r"[/\\\x00-\x08\x0e-\x1f]|^~")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def no_path(value: Any) -> str | None:
    """The value contains no path or address in its texts, at any depth."""
    return "no path or address is allowed" if any(map(_PATH_OR_ADDRESS.search, _texts(value))) else None


def text(value: Any) -> str | None:
    """Any value: the engine never opens it as a file or an address."""
    return None


def absolute_path(value: Any) -> str | None:
    """An absolute path of weights, as for `--model-path`."""
    return None if isinstance(value, str) and PurePosixPath(value).is_absolute() else "it must be an absolute path"


def template(value: Any) -> str | None:
    """The text of a chat template, for an option for which the engine also accepts a path."""
    return None if isinstance(value, str) and is_template(value) else "it must be the text of a template, not a path"


def built_in_name(value: Any) -> str | None:
    """A built-in name of the engine, for an option for which the engine also accepts a path."""
    return None if isinstance(value, str) and _NAME.fullmatch(value) else "it must be a built-in name, not a path"


def template_or_name(value: Any) -> str | None:
    """The text of a chat template, or the name of a built-in one."""
    valid = isinstance(value, str) and (is_template(value) or built_in_name(value) is None)
    return None if valid else "it must be the text of a template or the name of a built-in one, not a path"


def one_of(*choices: str) -> Rule:
    """One of the choices; the engine accepts other values, too, and opens some of them."""

    def rule(value: Any) -> str | None:
        return None if value in choices else f"it must be one of {', '.join(choices)}"

    return rule


def only_keys(*keys: str, **rules: Rule) -> Rule:
    """A JSON object with these keys only; a key without a rule in `rules` has the rule `no_path`."""

    def rule(value: Any) -> str | None:
        fields = _json(value)
        if isinstance(fields, int) and not isinstance(fields, bool):  # vLLM's short form of an object with one key
            return None
        if not isinstance(fields, Mapping):
            return "it must be a JSON object"
        for key, inner in fields.items():
            if key not in keys and key not in rules:
                return f"its key {key!r} is not allowed; the allowed keys are {', '.join((*keys, *rules))}"
            if (error := rules.get(key, no_path)(inner)) is not None:
                return f"for its key {key!r}: {error}"
        return None

    return rule


def is_template(value: str) -> bool:
    """Whether an engine that accepts a path or a template's text reads `value` as the text."""
    return ("{{" in value or "{%" in value) and not value.startswith(("/", "~", "."))


def literal_template(value: str) -> str:
    """The same template, in a form that no engine reads as a path."""
    return value if is_template(value) else "{{ '' }}" + value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, inner in value.items() for text in (str(key), *_texts(inner))]
    if isinstance(value, (list, tuple)):
        return [text for inner in value for text in _texts(inner)]
    return []


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
