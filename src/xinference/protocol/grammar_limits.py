"""Checks grammars in GBNF and other forms of EBNF: their rules, and the alternatives at one place of a parser."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from xinference.error_codes import Code
from xinference.protocol.constraint_limits import (
    MAX_ALTERNATIVES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_EXPANDED,
    MAX_PARTS,
    limit_refusal,
)
from xinference.protocol.errors import Refusal
from xinference.protocol.regex_limits import count_repetitions

_GRAMMAR_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\[\^?(?:\\.|[^\]\\])*\]|#[^\n]*|::=|[A-Za-z0-9_-]+|\{\s*(\d*)\s*(,?)\s*(\d*)\s*\}|[()|*+?.:]|<[^>]*>|\S',
    re.DOTALL,
)
#: An element of an alternative and whether it may be empty. The element is the name of a rule, a group, or None for a
#: text or a character class.
_Element = tuple[Any, bool]
_Alternatives = list[list[_Element]]


def check_grammar(grammar: str, where: str) -> None:
    """Check a grammar in GBNF or another form of EBNF.

    Raises:
        Refusal: 400, with the limit.
    """
    if len(grammar) > MAX_BYTES:
        raise limit_refusal(where, "characters", MAX_BYTES)
    if grammar.lstrip().startswith("%"):
        raise Refusal(Code.UNSUPPORTED_FIELD, f"{where}: a grammar must be in GBNF.", param=where)
    rules = _rules(grammar, where)
    if len(rules) > MAX_PARTS:
        raise limit_refusal(where, "rules", MAX_PARTS)
    _Stacks(rules, where).check()


def _rules(grammar: str, where: str) -> dict[str, _Alternatives]:
    tokens = [token for token in _GRAMMAR_TOKEN.finditer(grammar) if not token[0].startswith("#")]
    rules: dict[str, _Alternatives] = {}
    current: _Alternatives = [[]]
    open_groups: list[_Alternatives] = []
    alternatives = repeats = 0
    for number, token in enumerate(tokens):
        text = token[0]
        following = tokens[number + 1][0] if number + 1 < len(tokens) else ""
        if following in ("::=", ":") and not open_groups:
            current = rules.setdefault(text, [])
            current.append([])
        elif text in ("::=", ":"):
            continue
        elif text == "(":
            if len(open_groups) >= MAX_DEPTH:
                raise limit_refusal(where, "nested parentheses", MAX_DEPTH)
            open_groups.append(current)
            current = [[]]
        elif text == ")" and open_groups:
            group, current = current, open_groups.pop()
            current[-1].append((group, False))
        elif text == "|":
            alternatives += 1
            current.append([])
        elif text in "*+?" or (text[0] == "{" and len(text) > 1):
            least = 0 if text in "*?" else 1
            if text[0] == "{":
                repeats += count_repetitions(token[1], token[2], token[3], where)
                least = int(token[1] or 0)
            if current[-1]:
                element, may_be_empty = current[-1][-1]
                current[-1][-1] = (element, may_be_empty or not least)
        else:
            is_name = text[0] not in '"[.<' and len(text.strip("\\")) > 0
            current[-1].append((text if is_name else None, text == '""'))
        if alternatives > MAX_PARTS:
            raise limit_refusal(where, "alternatives", MAX_PARTS)
        if repeats > MAX_EXPANDED:
            raise limit_refusal(where, "repetitions in total", MAX_EXPANDED)
    return rules


@dataclass
class _Stacks:
    """Estimates the number of parser stacks of an engine, which compares each token with the top of each stack."""

    rules: dict[str, _Alternatives]
    where: str
    _counts: dict[int, int] = field(default_factory=dict)
    _empty: dict[int, bool] = field(default_factory=dict)

    def check(self) -> None:
        """Check all rules. Raises a 400 `Refusal`."""
        for alternatives in self.rules.values():
            self._visit(alternatives)

    def _visit(self, root: _Alternatives) -> None:
        """Compute the rules and groups inside `root`, then `root`. Iterative, because the nesting may be deep."""
        pending: list[tuple[_Alternatives, bool]] = [(root, False)]
        visited: set[int] = set()
        while pending:
            alternatives, is_prepared = pending.pop()
            key = id(alternatives)
            if key in self._counts or (not is_prepared and key in visited):
                continue
            if not is_prepared:
                visited.add(key)
                pending.append((alternatives, True))
                for sequence in alternatives:
                    for element, _ in sequence:
                        inner = self._inner(element)
                        if inner is not None and id(inner) not in self._counts:
                            pending.append((inner, False))
                continue
            self._compute(alternatives)

    def _inner(self, element: Any) -> _Alternatives | None:
        return self.rules.get(element) if isinstance(element, str) else element

    def _compute(self, alternatives: _Alternatives) -> None:
        total, may_be_empty = 0, False
        for sequence in alternatives:
            count, empty = 0, True
            for element, is_optional in reversed(sequence):
                inner = self._inner(element)
                # If the inner rule is not computed yet, it refers to itself.
                own = 1 if inner is None else self._counts.get(id(inner), 1)
                element_may_be_empty = is_optional or (inner is not None and self._empty.get(id(inner), False))
                count = own + (count if element_may_be_empty else 0)
                empty = empty and element_may_be_empty
                if count > MAX_ALTERNATIVES:
                    raise limit_refusal(self.where, "alternatives at one place", MAX_ALTERNATIVES)
            total, may_be_empty = total + max(count, 1), may_be_empty or empty
        if total > MAX_ALTERNATIVES:
            raise limit_refusal(self.where, "alternatives at one place", MAX_ALTERNATIVES)
        self._counts[id(alternatives)], self._empty[id(alternatives)] = total, may_be_empty
