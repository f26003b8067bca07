"""The types of options that are numbers between two limits, with the words integer and number in messages and help."""

from __future__ import annotations

import click


class IntegerRange(click.IntRange):
    """An integer between two limits."""

    name = "integer"


class NumberRange(click.FloatRange):
    """A number between two limits."""

    name = "number"
