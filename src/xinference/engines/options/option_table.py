"""The options of an engine's own server: checked before anything is installed, and written as its command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from xinference.engines.options.option_policy import OptionPolicy
from xinference.errors import Problem, near

#: One file for each locked version, printed by `describe_options.py` inside that engine's environment.
SHIPPED = Path(__file__).parent
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str, int, float),
    "switch": (bool,),
    "flag": (bool,),
    "json": (dict, list, str),
}
_NEEDED = {"switch": "true or false", "flag": "true or false", "json": "JSON", "str": "a text"}


@dataclass(frozen=True)
class OptionTable:
    """What one engine's server takes."""

    engine: str
    version: str
    aliases: Mapping[str, str]
    """Names of older versions, or of an older Xinference, for the same thing."""
    policy: OptionPolicy
    """Which of them a launch may set."""
    without_effect: frozenset[str]
    """Options of older versions for what is now done always, or not at all."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Option -> its type, one of `describe_options.py`'s."""
        return _kinds(f"{self.engine.lower()}-{self.version}")

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The user's options by the engine's own names, with the right types.

        Raises:
            Problem: 400 ``unknown_option`` with near ones, or ``bad_option``: a wrong value, or an option that a
                launch may not set.
        """
        checked: dict[str, Any] = {}
        for given, value in options.items():
            name = self.aliases.get(given, given)
            if given in self.without_effect or value is None:
                continue
            if name in self.policy.trusted and name not in self.kinds:  # a switch of ours, not the engine's
                self._typed(given, value, "switch")
                continue
            if name not in self.kinds:
                self.policy.refuse(given, name)
                raise self._unknown(given)
            self.policy.check(given, name, value, options)
            checked[name] = self._typed(given, value, self.kinds[name])
        return checked

    def argv(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The settings, by the engine's own names, as words of its command line."""
        words: list[str] = []
        for name, value in settings.items():
            option = f"--{name.replace('_', '-')}"
            kind = self.kinds[name]
            if kind in ("switch", "flag"):
                if value:
                    words.append(option)
                elif kind == "switch":
                    words.append(f"--no-{option[2:]}")
                continue
            values = [_word(item) for item in (value if kind == "list" else [value])]
            # A value that looks like an option must be tied to its name.
            tied = len(values) == 1 and values[0].startswith("-")
            words.extend([f"{option}={values[0]}"] if tied else [option, *values])
        return tuple(words)

    def _typed(self, given: str, value: Any, kind: str) -> Any:
        if kind == "list":
            items = list(value) if isinstance(value, (list, tuple)) else [value]
            # An item that begins with a dash would be another option of the command line.
            if any(isinstance(item, str) and item.startswith("-") for item in items):
                raise Problem("bad_option", 400, f"--{given} is {value!r:.100}, and no item may begin with a dash.")
            return items
        if isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind in ("switch", "flag")):
            return str(value) if kind == "str" else value
        needed = _NEEDED.get(kind, f"a value of type {kind}")
        raise Problem("bad_option", 400, f"--{given} is {value!r}, and {self.engine} takes {needed} there.")

    def _unknown(self, name: str) -> Problem:
        close = near(name, [*self.kinds.keys() & self.policy.offered, *self.aliases])
        return Problem(
            "unknown_option",
            400,
            f"{self.engine} {self.version} has no option --{name}.",
            hint=f"Did you mean --{' or --'.join(close)}?"
            if close
            else f"Its {len(self.kinds)} options are its own "
            f"server's; see the documentation of {self.engine} {self.version}.",
        )


@cache
def _kinds(stem: str) -> Mapping[str, str]:
    options: dict[str, str] = json.loads((SHIPPED / f"{stem}.json").read_text(encoding="utf-8"))["options"]
    return options


def _word(value: Any) -> str:
    # A chat template may say `{{port}}`; the command line's own `{port}` is the port.
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("{port}", "{ port}")
