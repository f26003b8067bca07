"""The options of an engine that a launch may set: each option is in one group, by its effect.

An option in no group is refused. `tests/engines/test_option_policies.py` fails with its name if a new version of an
engine adds one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.engines.options.risk import Risk
from xinference.engines.options.value_rules import Rule, no_path, text
from xinference.error_codes import Code
from xinference.errors import Problem, shown


def names(listing: str) -> frozenset[str]:
    """The names in a text, separated by white space."""
    return frozenset(listing.split())


@dataclass(frozen=True)
class OptionPolicy:
    """The groups of one engine's options, by the engine's own names; each option is in exactly one group."""

    engine: str
    allowed: frozenset[str]
    reserved: frozenset[str]
    """Xinference sets these for each launch."""
    refused: Mapping[Risk, frozenset[str]]
    switches: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Switch -> the options that need it, because they load code. A launch sets the switch like an option."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Rules for the values of single options. Without one, `no_path` applies, or no rule if a switch is needed."""

    @property
    def available(self) -> frozenset[str]:
        """All options that a launch may set, including those that need a switch."""
        return self.allowed.union(self.switches, *self.switches.values())

    def groups(self, name: str) -> list[str]:
        """The groups that contain the option."""
        groups: dict[str, Collection[str]] = {"allowed": self.allowed, "reserved": self.reserved}
        groups |= {risk.name: refused for risk, refused in self.refused.items()}
        groups |= {f"needs {switch}": dependent for switch, dependent in self.switches.items()}
        groups |= {"switch": self.switches.keys()}
        return [group for group, members in groups.items() if name in members]

    def find_misclassified(self, known: Iterable[str]) -> list[str]:
        """The options that are not in exactly one group."""
        return sorted(name for name in known if len(self.groups(name)) != 1)

    def refuse(self, option: str, name: str) -> None:
        """Refuse an option by its name alone.

        Args:
            option: the name in the request.
            name: the engine's own name.

        Raises:
            Problem: 400 ``bad_option``: reserved or refused, with the reason. An option in no group passes.
        """
        if name in self.reserved:
            raise _bad_option(f"--{option} is reserved: Xinference sets it itself.", "Leave it out.")
        risk = next((risk for risk, refused in self.refused.items() if name in refused), None)
        if risk is not None:
            raise self._refusal(option, risk)

    def check(self, option: str, name: str, value: Any, options: Mapping[str, Any]) -> None:
        """Check an option that the engine has.

        Args:
            option: the name in the request.
            name: the engine's own name.
            value: the option's value.
            options: all options of the launch, with the switches.

        Raises:
            Problem: 400 ``bad_option``: the option is refused, its switch is missing, or its value is not allowed.
        """
        self.refuse(option, name)
        if name not in self.available:
            raise self._refusal(option, Risk.UNREVIEWED)
        switch = next((switch for switch, dependent in self.switches.items() if name in dependent), None)
        if switch is not None and options.get(switch) is not True:
            raise _bad_option(
                f"--{option} of {self.engine} {Risk.CODE.value} that the launch names.",
                f"If you trust that code, launch with --{switch} true.",
            )
        rule = self.rules.get(name, no_path if switch is None else text)
        if (error := rule(value)) is not None:
            raise _bad_option(
                f"--{option} is {shown(value)}, but {error}.", "docs/engines.md lists the accepted values."
            )

    def _refusal(self, option: str, risk: Risk) -> Problem:
        return _bad_option(f"--{option} of {self.engine} is refused: it {risk.value}.", risk.hint)


def _bad_option(cause: str, hint: str) -> Problem:
    return Problem(Code.BAD_OPTION, cause, hint=hint)
