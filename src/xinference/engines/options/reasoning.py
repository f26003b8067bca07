"""Xinference's own option `reasoning_content`, which has the same name on every engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem, shown

NAME = "reasoning_content"


def read_reasoning(options: Mapping[str, Any], own: str) -> bool | None:
    """Whether a reasoning text is returned as ``reasoning_content``, apart from the answer; None: the engine's default.

    Args:
        own: the engine's option that decides the same.

    Raises:
        Problem: 400 ``bad_option``, a wrong value, or both options.
    """
    value = options.get(NAME)
    if value is None:
        return None
    if not isinstance(value, bool):
        raise Problem(Code.BAD_OPTION, f"--{NAME} is {shown(value)}, and must be true or false.")
    if options.get(own) is not None:
        raise Problem(Code.BAD_OPTION, f"--{NAME} and --{own} set the same.", hint="Pass only one of them.")
    return value


def without_reasoning(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a launch without `NAME`."""
    return {name: value for name, value in options.items() if name != NAME}
