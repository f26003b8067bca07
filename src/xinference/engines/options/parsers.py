"""Chooses an engine's parsers for a family's tool calls and reasoning; the tables are each engine's own data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xinference.catalog.models import ModelFamily

FORCED = 'Send tool_choice "required", or name a function: such a call follows its schema.'


@dataclass(frozen=True)
class Parsers:
    """An engine's parsers of tool calls and reasoning."""

    engine: str
    """The engine's name and version, for reasons."""
    known_tools: frozenset[str]
    """All tool parsers of the engine's version."""
    known_reasoning: frozenset[str]
    """All reasoning parsers of the engine's version."""
    aliases: Mapping[str, str]
    """Forms of tool calls, by names in other engines and an older Xinference -> this engine's parser."""
    schema_parser: str
    """Reads a call that a schema forces, for families whose form is not known."""
    reasoning: Mapping[str, str]
    """Prefix of a family's name, in lower case -> reasoning parser; the longest matching prefix is used."""
    reasoning_of_form: Mapping[str, str]
    """Form of a family's tool calls -> its reasoning parser, if the form's models have one of their own."""
    reasoning_of_tags: Mapping[tuple[str, str], str]
    """Tags around the reasoning -> the parser, for tags that only one kind of model writes."""
    tagged: str
    """For a family that always reasons, between ``<think>`` and ``</think>``."""
    tagged_hybrid: str
    """For a hybrid family."""

    def tool_parser(self, family: ModelFamily) -> str | None:
        """None: the family names no form, or one that the engine does not read; any other parser would misread it."""
        if family.tool_parser is None:
            return None
        parser = self.aliases.get(family.tool_parser, family.tool_parser)
        return parser if parser in self.known_tools else None

    def reasoning_parser(self, family: ModelFamily) -> str | None:
        """None: the family does not reason, or the engine has no parser for its reasoning."""
        if "reasoning" not in family.model_ability:
            return None
        tags = family.reasoning_tags
        parser = self.reasoning_of_form.get(family.tool_parser or "")
        if parser is None and tags == ("<think>", "</think>"):
            parser = self.tagged_hybrid if "hybrid" in family.model_ability else self.tagged
        elif parser is None and tags is not None:
            parser = self.reasoning_of_tags.get(tags)
        elif parser is None:
            parser = _longest(self.reasoning, family.model_name)
        return parser if parser in self.known_reasoning else None

    def tool_refusal(self, family: ModelFamily, options: Mapping[str, Any]) -> str | None:
        """The reason why the model's own tool calls can't be read; None: they can, or the launch names a parser."""
        if options.get("tool_call_parser") or self.tool_parser(family) is not None:
            return None
        if family.tool_parser is None:
            return f"{unknown_form(family)} {FORCED} Or launch it with --tool_call_parser, if you know the form."
        return f"{self.engine} has no parser for tool calls in the form {family.tool_parser!r}. {FORCED}"

    def reasons(self, family: ModelFamily, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The plan's reasons for what is not parsed."""
        reasons = []
        if "tools" in family.model_ability and self.tool_refusal(family, options) is not None:
            form = repr(family.tool_parser) if family.tool_parser else "that is not known"
            reasons.append(
                f"tools: {self.engine} has no parser for calls in the form {form}; only forced calls are read"
            )
        unread = "reasoning" in family.model_ability and self.reasoning_parser(family) is None
        if unread and not options.get("reasoning_parser"):
            reasons.append(f"reasoning: {self.engine} has no parser for it, so it stays in the answer")
        return tuple(reasons)


def unknown_form(family: ModelFamily) -> str:
    """A sentence on a family that names no form of its tool calls."""
    return f"It is not known in which form {family.model_name} writes tool calls, or whether it writes any."


def _longest(table: Mapping[str, str], name: str) -> str | None:
    lowered = name.lower()
    matching = [beginning for beginning in table if lowered.startswith(beginning)]
    return table[max(matching, key=len)] if matching else None
