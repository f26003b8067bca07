"""Whether a hybrid model thinks before it answers: the engine's option for what a launch says. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.errors import bad_request


@dataclass(frozen=True)
class ThinkingOption:
    """An engine's option for the variables that every chat template gets."""

    name: str
    form: Callable[[bool], bool | str] = bool
    """The value of a variable in the form that the option takes."""


def with_thinking(
    engine: str,
    option: ThinkingOption | None,
    version: ModelVersion,
    wanted: bool | None,
    options: Mapping[str, Any],
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The engine's options with the choice among them, and the reasons for the plan.

    The ``chat_template_kwargs`` of a request win over it.

    Args:
        engine: its display name.
        option: None: the engine has no such option.
        wanted: None: the launch says nothing.

    Raises:
        Problem: 400 ``unsupported_option``.
    """
    if wanted is None:
        return options, ()
    if "hybrid" not in version.family.model_ability:
        name = version.family.model_name
        return options, (f"enable_thinking changes nothing: {name} is not known as a model that can be told to think",)
    if option is None:
        raise bad_request(
            f"enable_thinking can't be given to {engine} at a launch.",
            hint=f'Send "chat_template_kwargs": {{"enable_thinking": {json.dumps(wanted)}}} with each request.',
            code="unsupported_option",
        )
    variables = {"enable_thinking": option.form(wanted)}
    given = options.get(option.name)
    merged = {**variables, **given} if isinstance(given, Mapping) else variables
    return {**options, option.name: merged}, (f"thinking: {wanted}",)
