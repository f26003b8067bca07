"""Which options of an engine a launch may set: each name is judged by what the option can do.

An option that nobody has judged is refused. `tests/engines/test_option_policies.py` fails, and names it, when a new
version of an engine brings one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xinference.engines.options.risk import Risk
from xinference.engines.options.value_rules import Rule, plain
from xinference.errors import Problem


def names(listing: str) -> frozenset[str]:
    """The names in a text, separated by white space."""
    return frozenset(listing.split())


@dataclass(frozen=True)
class OptionPolicy:
    """The judgements of one engine's options, by the engine's own names; each name is in one of the four groups."""

    engine: str
    allowed: frozenset[str]
    reserved: frozenset[str]
    """Xinference sets these for each launch."""
    refused: Mapping[Risk, frozenset[str]]
    trusted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Switch -> the options that need it, because they load code. A launch sets the switch like an option."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Allowed and trusted options whose values are restricted otherwise than by `plain`."""

    @property
    def offered(self) -> frozenset[str]:
        """What a launch may set, with a switch or without."""
        return self.allowed.union(self.trusted, *self.trusted.values())

    def judgements(self, name: str) -> list[str]:
        """The groups that `name` is in: one, if it was judged."""
        groups: dict[str, Collection[str]] = {"allowed": self.allowed, "reserved": self.reserved}
        groups |= {risk.name: refused for risk, refused in self.refused.items()}
        groups |= {f"needs {switch}": needing for switch, needing in self.trusted.items()}
        groups |= {"switch": self.trusted.keys()}
        return [group for group, members in groups.items() if name in members]

    def unjudged(self, known: Iterable[str]) -> list[str]:
        """The names that are not in exactly one group."""
        return sorted(name for name in known if len(self.judgements(name)) != 1)

    def refuse(self, given: str, name: str) -> None:
        """Refuse an option by its name alone.

        Args:
            given: the name by which the user gave it.
            name: the engine's own name.

        Raises:
            Problem: 400 ``bad_option``: reserved or refused, with the reason. A name of no group is left alone.
        """
        if name in self.reserved:
            raise _bad_option(f"--{given} is reserved: Xinference sets it.", "Leave it out.")
        risk = next((risk for risk, refused in self.refused.items() if name in refused), None)
        if risk is not None:
            raise _bad_option(f"--{given} of {self.engine} is refused: it {risk.value}.", risk.hint)

    def check(self, given: str, name: str, value: Any, options: Mapping[str, Any]) -> None:
        """Check an option that the engine has.

        Args:
            given: the name by which the user gave it.
            name: the engine's own name.
            value: of the option.
            options: all options of the launch, with the switches.

        Raises:
            Problem: 400 ``bad_option``: it may not be set, not without a switch, or not to this value.
        """
        self.refuse(given, name)
        if name not in self.offered:
            risk = Risk.UNJUDGED
            raise _bad_option(f"--{given} of {self.engine} is refused: it {risk.value}.", risk.hint)
        switch = next((switch for switch, needing in self.trusted.items() if name in needing), None)
        if switch is not None and options.get(switch) is not True:
            raise _bad_option(
                f"--{given} of {self.engine} {Risk.CODE.value} that the launch names.",
                f"If you trust that code, launch with --{switch} true.",
            )
        rule = self.rules.get(name, plain if switch is None else _anything)
        if (wrong := rule(value)) is not None:
            raise _bad_option(f"--{given} is {value!r:.100}, and {wrong}.", "docs/engines.md says what it takes.")


def _anything(value: Any) -> str | None:
    return None


def _bad_option(cause: str, hint: str) -> Problem:
    return Problem("bad_option", 400, cause, hint=hint)
