"""The options of an engine's own server: checked before anything is installed, and rendered as its command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from xinference.engines.options.option_policy import OptionPolicy
from xinference.error_codes import Code
from xinference.errors import Problem, join_names, near, shown

#: One file for each locked version, the output of `describe_options.py` in that engine's environment.
SHIPPED = Path(__file__).parent
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str, int, float),
    "switch": (bool,),
    "flag": (bool,),
    "json": (dict, list, str),
}
#: Kind of an option -> its values in words.
NEEDED = {
    "switch": "true or false",
    "flag": "true or false",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "json": "JSON",
    "str": "a text",
    "list": "a list",
}


def missing_value(option: str, value: Any) -> str | None:
    """The hint for an option that must not be true: on the command line, an option without a value is."""
    return f"Write --{option} VALUE: an option without a value is true." if value is True else None


@dataclass(frozen=True)
class OptionTable:
    """The options of one engine's server."""

    engine: str
    version: str
    aliases: Mapping[str, str]
    """Names in older versions or an older Xinference -> the current name."""
    policy: OptionPolicy
    """The options that a launch may set."""
    without_effect: frozenset[str]
    """Options of older versions for behaviour that is now fixed."""

    @property
    def kinds(self) -> Mapping[str, str]:
        """Option -> its type, one of `describe_options.py`'s."""
        return _kinds(f"{self.engine.lower()}-{self.version}")

    @property
    def open_kinds(self) -> Mapping[str, str]:
        """The options that a launch may set, with their types."""
        return {name: kind for name, kind in self.kinds.items() if name in self.policy.available}

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The user's options by the engine's own names, with the right types.

        Raises:
            Problem: 400 ``unknown_option`` with similar names, or ``bad_option``: a wrong value, or an option that a
                launch may not set.
        """
        checked: dict[str, Any] = {}
        names: dict[str, str] = {}
        for option, value in options.items():
            name = self.aliases.get(option, option)
            if option in self.without_effect or value is None:
                continue
            if name in self.policy.switches and name not in self.kinds:  # a switch of Xinference, not of the engine
                self._convert(option, value, "switch")
                continue
            if name not in self.kinds:
                self.policy.refuse(option, name)
                raise self._unknown(option)
            self.policy.check(option, name, value, options)
            converted = self._convert(option, value, self.kinds[name])
            check_repeated(names, checked, option, name, converted)
            checked[name] = converted
        return checked

    def argv(self, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The settings, by the engine's own names, as command line arguments."""
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
            # A value that begins like an option must be joined to its name.
            joined = len(values) == 1 and values[0].startswith("-")
            words.extend([f"{option}={values[0]}"] if joined else [option, *values])
        return tuple(words)

    def _convert(self, option: str, value: Any, kind: str) -> Any:
        if kind == "list":
            items = list(value) if isinstance(value, (list, tuple)) else [value]
            # On the command line an item that begins with a dash would be another option.
            if any(isinstance(item, str) and item.startswith("-") for item in items):
                raise Problem(Code.BAD_OPTION, f"--{option} is {shown(value)}, but no item may begin with a dash.")
            return items
        if isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind in ("switch", "flag")):
            return str(value) if kind == "str" else value
        cause = f"--{option} is {shown(value)}, but {self.engine} needs {NEEDED.get(kind, kind)}."
        raise Problem(Code.BAD_OPTION, cause, hint=missing_value(option, value))

    def _unknown(self, name: str) -> Problem:
        close = near_options(name, self.kinds.keys() & self.policy.available, self.aliases)
        return Problem(
            Code.UNKNOWN_OPTION,
            f"{self.engine} {self.version} has no option --{name}.",
            hint=f"Did you mean {join_names([f'--{each}' for each in close])}?"
            if close
            else f"Its {len(self.kinds)} options are its own "
            f"server's; see the documentation of {self.engine} {self.version}.",
        )


def check_repeated(names: dict[str, str], checked: Mapping[str, Any], option: str, name: str, value: Any) -> None:
    """Refuse an option under two names with different values.

    Args:
        names: the engine's own name -> the name in the request, of the options so far; `option` is added.
        checked: the options so far, by the engine's own names.

    Raises:
        Problem: 400 ``bad_option``.
    """
    earlier = names.setdefault(name, option)
    if earlier != option and checked.get(name) != value:
        raise Problem(
            Code.BAD_OPTION, f"--{earlier} and --{option} are the same option.", hint="Pass only one of them."
        )


def near_options(name: str, options: Iterable[str], aliases: Iterable[str]) -> list[str]:
    """The options closest to `name`, at most three.

    An option of a group is close if its last part begins as `name`: ``sampling.temp`` for ``temperature``.
    """
    available = sorted(options)
    parts = ((option, option.rpartition(".")[2]) for option in available if "." in option)
    grouped = [option for option, part in parts if len(part) > 2 and (name.startswith(part) or part.startswith(name))]
    return list(dict.fromkeys([*grouped, *near(name, [*available, *aliases])]))[:3]


@cache
def _kinds(stem: str) -> Mapping[str, str]:
    options: dict[str, str] = json.loads((SHIPPED / f"{stem}.json").read_text(encoding="utf-8"))["options"]
    return options


def _word(value: Any) -> str:
    # A chat template may contain `{{port}}`; the command's own `{port}` is replaced by the port.
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("{port}", "{ port}")
