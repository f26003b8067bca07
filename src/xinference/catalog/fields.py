"""Typed access to the fields of a user's JSON object: a fault names the field's path, its value and a fix."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, join_names, shown

#: Larger numbers are not plausible, and do not fit an integer of other programs.
_LARGEST = 1 << 31


class Fields:
    """One object at `path` inside the document; null counts as absent."""

    def __init__(self, value: object, path: str = "") -> None:
        """Raises `Problem` if `value` is not an object."""
        self.path = path
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise bad_field(path or "the model", value, 'is not a JSON object such as {"model_name": "my-model"}')
        self._values: dict[str, Any] = value

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def bad(self, name: str, reason: str, hint: str | None = None) -> Problem:
        """The problem of a field; `reason` completes "<path> is <value>, which …"."""
        return bad_field(self.at(name), self._values.get(name), reason, hint)

    def missing(self, name: str, hint: str) -> Problem:
        return Problem(Code.INVALID_REGISTRATION, f"{self.at(name)} is missing.", hint=hint)

    def text(self, name: str, hint: str = "") -> str:
        """A required, non-empty string; `hint` describes it if it is missing."""
        value = self.optional_text(name)
        if value is None:
            raise self.missing(name, hint or "It is a string.")
        if not value.strip():
            raise self.bad(name, "is empty", hint or None)
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "is not a string")
        return value

    def optional_count(self, name: str, minimum: int = 1) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < _LARGEST:
            raise self.bad(name, f"is not an integer of at least {minimum}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; empty if absent."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(name, 'is not a list of strings such as ["en"]')
        for position, each in enumerate(value):
            if not isinstance(each, str) or not each:
                raise bad_field(f"{self.at(name)}[{position}]", each, "is not a string")
        return tuple(value)

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of non-negative integers; empty if absent."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(name, "is not a list of integers such as [2]")
        for position, each in enumerate(value):
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < _LARGEST:
                raise bad_field(f"{self.at(name)}[{position}]", each, "is not an integer of at least 0")
        return tuple(value)

    def object(self, name: str) -> Fields | None:
        return Fields(self._values[name], self.at(name)) if self.has(name) else None

    def objects(self, name: str) -> list[Fields]:
        """A list of at least one object."""
        value = self._values.get(name)
        if not isinstance(value, list) or not value:
            if value is None:
                raise self.missing(name, "Use a list with an object for each format and size.")
            raise self.bad(name, "is not a list of objects, or is empty")
        return [Fields(each, f"{self.at(name)}[{position}]") for position, each in enumerate(value)]

    def items(self) -> Iterator[str]:
        """The names of the existing fields."""
        return (name for name, value in self._values.items() if value is not None)

    def check_names(self, known: Collection[str]) -> None:
        """Refuse a field whose name is similar to a known one; other unknown fields are ignored, as in Xinference."""
        for name in self.items():
            close = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close and not self.has(close[0]):
                raise Problem(
                    Code.INVALID_REGISTRATION,
                    f"{self.at(name)} is not a field of a model.",
                    hint=f"Did you mean {close[0]}?",
                )


def bad_field(path: str, value: object, reason: str, hint: str | None = None) -> Problem:
    """The problem of a value: ``model_specs[0].model_format is 'mlx', which …``."""
    cause = f"{path} is {shown(value)}, which {reason}."
    return Problem(Code.INVALID_REGISTRATION, cause, hint=hint or f"Correct {path} in the JSON.")


def one_of(fields: Fields, name: str, value: str, choices: Mapping[str, str] | Collection[str]) -> str:
    """The choice that `value` names, case-insensitive.

    Raises:
        Problem: 400, with similar choices, or all of them.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    choice = by_lower.get(value.strip().lower())
    if choice is not None:
        return choice
    close = difflib.get_close_matches(value.lower(), by_lower, n=3, cutoff=0.6)
    hint = f"Did you mean {join_names([by_lower[c] for c in close])}?" if close else f"Use one of {', '.join(choices)}."
    raise fields.bad(name, "is not known", hint)
