"""What the value of an allowed option may be: rules that return what is wrong with a value, or None."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

#: Completes "--option is VALUE, and …"; None: the value is fine.
Rule = Callable[[Any], str | None]

#: A path, an address, or a text that a shell or a parser could take for one. JSON's escapes need a backslash too.
_PATH_OR_ADDRESS = re.compile(r"[/\\\x00-\x08\x0e-\x1f]|^~")
_NAME = re.compile(r"[A-Za-z0-9_-]+")


def plain(value: Any) -> str | None:
    """No text in the value, at any depth, can be a path or an address."""
    return "no path or address is taken there" if any(map(_PATH_OR_ADDRESS.search, _texts(value))) else None


def text(value: Any) -> str | None:
    """Any text: the engine never opens it."""
    return None


def folder(value: Any) -> str | None:
    """The absolute path of weights, the same as `--model-path`."""
    return None if isinstance(value, str) and PurePosixPath(value).is_absolute() else "it takes an absolute path"


def template(value: Any) -> str | None:
    """The text of a chat template, where the engine would also take the path of one."""
    return None if isinstance(value, str) and is_template(value) else "it takes the text of a template, not a path"


def built_in(value: Any) -> str | None:
    """The name of something that the engine brings, where it would also take a path."""
    return None if isinstance(value, str) and _NAME.fullmatch(value) else "it takes a built-in name, not a path"


def template_or_name(value: Any) -> str | None:
    """The text of a chat template, or the name of one that the engine brings."""
    known = isinstance(value, str) and (is_template(value) or built_in(value) is None)
    return None if known else "it takes the text of a template or the name of a built-in one, not a path"


def one_of(*choices: str) -> Rule:
    """One of these words; the engine takes more than these, and opens some of them."""

    def rule(value: Any) -> str | None:
        return None if value in choices else f"it takes {', '.join(choices)}"

    return rule


def only_keys(*keys: str, **rules: Rule) -> Rule:
    """A JSON object with these keys only; those in `rules` have a rule of their own, the others are `plain`."""

    def rule(value: Any) -> str | None:
        fields = _json(value)
        if isinstance(fields, int) and not isinstance(fields, bool):  # vLLM's short form of one key
            return None
        if not isinstance(fields, Mapping):
            return "it takes a JSON object"
        for key, inner in fields.items():
            if key not in keys and key not in rules:
                return f"its key {key!r} is not offered; it takes {', '.join((*keys, *rules))}"
            if (wrong := rules.get(key, plain)(inner)) is not None:
                return f"of its key {key!r}, {wrong}"
        return None

    return rule


def is_template(value: str) -> bool:
    """Whether an engine that takes a path or a template's text can only take `value` for the text."""
    return ("{{" in value or "{%" in value) and not value.startswith(("/", "~", "."))


def literal_template(value: str) -> str:
    """The same template, in a form that can't be taken for a path."""
    return value if is_template(value) else "{{ '' }}" + value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [found for key, inner in value.items() for found in (str(key), *_texts(inner))]
    if isinstance(value, (list, tuple)):
        return [found for inner in value for found in _texts(inner)]
    return []


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None
