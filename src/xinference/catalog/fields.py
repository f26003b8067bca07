"""A user's JSON object, asked for its fields one by one: a fault names the field by path, its value and a way out."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xinference.errors import Problem

#: Numbers beyond it count nothing that exists, and fit no program's integer.
_LARGEST = 1 << 31
_SHOWN = 80


class Fields:
    """One object at `path` inside the document; null counts as absent everywhere."""

    def __init__(self, value: object, path: str = "") -> None:
        """Raises `Problem` if `value` is no object."""
        self.path = path
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise bad_field(path or "the model", value, 'is no JSON object such as {"model_name": "my-model"}')
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
        return Problem("invalid_registration", 400, f"{self.at(name)} is missing.", hint=hint)

    def text(self, name: str, hint: str = "") -> str:
        """A text that must be there and not empty; `hint` says what it is for, if it is missing."""
        value = self.optional_text(name)
        if value is None:
            raise self.missing(name, hint or "Give it as a text.")
        if not value.strip():
            raise self.bad(name, "is empty", hint or None)
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, "is no text")
        return value

    def optional_count(self, name: str, least: int = 1) -> int | None:
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < _LARGEST:
            raise self.bad(name, f"is no whole number from {least} on")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; absent means none."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(name, 'is no list of texts such as ["en"]')
        for position, each in enumerate(value):
            if not isinstance(each, str) or not each:
                raise bad_field(f"{self.at(name)}[{position}]", each, "is no text")
        return tuple(value)

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers from 0 on; absent means none."""
        value = self._values.get(name)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.bad(name, "is no list of whole numbers such as [2]")
        for position, each in enumerate(value):
            if isinstance(each, bool) or not isinstance(each, int) or not 0 <= each < _LARGEST:
                raise bad_field(f"{self.at(name)}[{position}]", each, "is no whole number from 0 on")
        return tuple(value)

    def object(self, name: str) -> Fields | None:
        return Fields(self._values[name], self.at(name)) if self.has(name) else None

    def objects(self, name: str) -> list[Fields]:
        """A list of at least one object."""
        value = self._values.get(name)
        if not isinstance(value, list) or not value:
            if value is None:
                raise self.missing(name, "Give a list with an object for each format and size.")
            raise self.bad(name, "is no list of objects, or an empty one")
        return [Fields(each, f"{self.at(name)}[{position}]") for position, each in enumerate(value)]

    def items(self) -> Iterator[str]:
        """The names of the fields that are there."""
        return (name for name, value in self._values.items() if value is not None)

    def check_names(self, known: Collection[str]) -> None:
        """Refuse a field whose name is almost a known one; others are left alone, as they always were."""
        for name in self.items():
            close = [] if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close and not self.has(close[0]):
                raise Problem(
                    "invalid_registration",
                    400,
                    f"{self.at(name)} is no field of a model.",
                    hint=f"Did you mean {close[0]}?",
                )


def bad_field(path: str, value: object, reason: str, hint: str | None = None) -> Problem:
    """The problem of a value: ``model_specs[0].model_format is 'mlx', which …``."""
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
    return Problem(
        "invalid_registration", 400, f"{path} is {shown}, which {reason}.", hint=hint or f"Correct {path} in the JSON."
    )


def one_of(fields: Fields, name: str, value: str, choices: Mapping[str, str] | Collection[str]) -> str:
    """The choice that `value` means, whatever its case.

    Raises:
        Problem: 400, with the choices and the near ones first.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    found = by_lower.get(value.strip().lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(value.lower(), by_lower, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(by_lower[c] for c in close)}?" if close else f"Use one of {', '.join(choices)}."
    raise fields.bad(name, "is not known", hint)
