"""The types of options that are numbers between two limits, with the words integer and number in messages and help."""

from __future__ import annotations

import re
from typing import Any

import click

#: Maximum number of tokens of a context: engines store it in 32 bits.
MAX_TOKENS = 2**31 - 1
_NUMBER = re.compile(r"([+-]?\d{1,300})([kK]?)", re.ASCII)


class IntegerRange(click.IntRange):
    """An integer between two limits."""

    name = "integer"


class NumberRange(click.FloatRange):
    """A number between two limits."""

    name = "number"


class TokenCount(IntegerRange):
    """A number of tokens from 1 to `maximum`. As on model cards, k stands for 1,024: 32k is 32,768."""

    name = "tokens"

    def __init__(self, maximum: int = MAX_TOKENS) -> None:
        super().__init__(1, maximum)
        self._maximum = maximum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number; the message about a wrong one has the user's text."""
        match = _NUMBER.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not a number of tokens, such as 8192 or 32k.", param, ctx)
        number = int(match[1]) * (1024 if match[2] else 1)
        if not 1 <= number <= self._maximum:
            self.fail(f"{value} is not between 1 and {self._maximum}.", param, ctx)
        return number
