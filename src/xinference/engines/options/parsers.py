"""Chooses an engine's parsers for a family's tool calls and reasoning; the tables are each engine's own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xinference.catalog.models import ModelFamily


@dataclass(frozen=True)
class Parsers:
    """An engine's parsers by a prefix of a family's name, in lower case; the longest matching prefix is used."""

    tools: Mapping[str, str]
    reasoning: Mapping[str, str]
    other_tools: str
    """The default for families without an entry."""
    known_tools: frozenset[str]
    """All tool parsers of the engine's version."""
    aliases: Mapping[str, str]
    """Names in other engines and an older Xinference -> this engine's name."""
    tagged: str
    """For a registered family that always reasons, between ``<think>`` and ``</think>``."""
    tagged_hybrid: str
    """For a hybrid family."""

    def tool_parser(self, family: ModelFamily) -> str | None:
        """None: the family names a parser that the engine does not have, and any other would misread its calls."""
        if family.tool_parser is not None:
            parser = self.aliases.get(family.tool_parser, family.tool_parser)
            return parser if parser in self.known_tools else None
        return _longest(self.tools, family.model_name) or self.other_tools

    def reasoning_parser(self, family: ModelFamily) -> str | None:
        """None: the family does not reason, or the engine has no parser for its reasoning."""
        if "reasoning" not in family.model_ability:
            return None
        if family.reasoning_tags == ("<think>", "</think>"):
            return self.tagged_hybrid if "hybrid" in family.model_ability else self.tagged
        return _longest(self.reasoning, family.model_name)


def _longest(table: Mapping[str, str], name: str) -> str | None:
    lowered = name.lower()
    matching = [beginning for beginning in table if lowered.startswith(beginning)]
    return table[max(matching, key=len)] if matching else None
