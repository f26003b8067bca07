"""Which parser of an engine reads a family's tool calls and reasoning: data of each engine, looked up in one way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xinference.catalog.models import ModelFamily


@dataclass(frozen=True)
class Parsers:
    """An engine's parsers by the beginning of a family's name, in lower case; the longest beginning wins."""

    tools: Mapping[str, str]
    reasoning: Mapping[str, str]
    other_tools: str
    """For families that are not named."""
    known_tools: frozenset[str]
    """All that the engine's version has."""
    aliases: Mapping[str, str]
    """What other engines and an older Xinference call them -> this engine's name."""
    tagged: str
    """For a registered family that always thinks, between ``<think>`` and ``</think>``."""
    tagged_hybrid: str
    """For one that need not think."""

    def tool_parser(self, family: ModelFamily) -> str:
        given = self.aliases.get(family.tool_parser or "", family.tool_parser)
        if given in self.known_tools:
            return str(given)
        return _longest(self.tools, family.model_name) or self.other_tools

    def reasoning_parser(self, family: ModelFamily) -> str | None:
        """None: the family does not think aloud, or the engine can't tell where it does."""
        if "reasoning" not in family.model_ability:
            return None
        if family.reasoning_tags == ("<think>", "</think>"):
            return self.tagged_hybrid if "hybrid" in family.model_ability else self.tagged
        return _longest(self.reasoning, family.model_name)


def _longest(table: Mapping[str, str], name: str) -> str | None:
    lowered = name.lower()
    matching = [beginning for beginning in table if lowered.startswith(beginning)]
    return table[max(matching, key=len)] if matching else None
