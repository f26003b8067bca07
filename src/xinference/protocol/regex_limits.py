"""Checks regular expressions: their parts after all repetitions are expanded."""

from __future__ import annotations

import re

from xinference.protocol.constraint_limits import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_EXPANDED,
    MAX_REPEATS,
    contradiction_refusal,
    limit_refusal,
)

_REGEX_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(,?)(\d*)\}|[()|*+?]|.", re.DOTALL)


def check_regex(regex: str, where: str, expanded: int = 0) -> int:
    """Check a regular expression; returns `expanded` plus the number of its parts after repetitions are expanded.

    Raises:
        Refusal: 400, with the limit.
    """
    if len(regex) > MAX_BYTES:
        raise limit_refusal(where, "characters", MAX_BYTES)
    sizes: list[int] = [0]
    last: list[int] = [0]
    for token in _REGEX_TOKEN.finditer(regex):
        text = token[0]
        if text == "(":
            if len(sizes) > MAX_DEPTH:
                raise limit_refusal(where, "nested parentheses", MAX_DEPTH)
            sizes.append(0)
            last.append(0)
        elif text == ")" and len(sizes) > 1:
            size = max(1, sizes.pop())
            last.pop()
            sizes[-1] += size
            last[-1] = size
        elif text[0] == "{" and len(text) > 1:
            times = count_repetitions(token[1], token[2], token[3], where)
            sizes[-1] += last[-1] * (max(1, times) - 1)
            last[-1] *= max(1, times)
        elif text not in "*+?|":
            sizes[-1] += 1
            last[-1] = 1
        if expanded + sizes[-1] > MAX_EXPANDED:
            raise limit_refusal(where, "parts after its repetitions are expanded", MAX_EXPANDED)
    return expanded + sum(sizes)


def count_repetitions(low: str, comma: str, high: str, where: str) -> int:
    """The number of repetitions of ``{low,high}``."""
    if len(low) > 9 or len(high) > 9:
        raise limit_refusal(where, "repetitions", MAX_REPEATS)
    least = int(low or 0)
    most = int(high) if high else least
    if high and most < least:
        raise contradiction_refusal(where, f"the minimum of the repetition {{{low},{high}}} is above the maximum")
    if max(least, most) > MAX_REPEATS:
        raise limit_refusal(where, "repetitions", MAX_REPEATS)
    return most
