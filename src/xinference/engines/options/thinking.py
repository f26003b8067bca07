"""Sets the engine option by which a hybrid model reasons before it answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.error_codes import Code
from xinference.errors import bad_request


@dataclass(frozen=True)
class ThinkingOption:
    """An engine's option for the default variables of the chat template."""

    name: str
    form: Callable[[bool], bool | str] = bool
    """Converts a variable's value to the form that the option requires."""


def with_thinking(
    engine: str,
    option: ThinkingOption | None,
    version: ModelVersion,
    enable: bool | None,
    options: Mapping[str, Any],
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The engine's options with the default of ``enable_thinking``, and the reasons for the plan.

    The ``chat_template_kwargs`` of a request override this default.

    Args:
        engine: the engine's display name.
        option: the engine's option; None: it has no such option.
        enable: the launch's ``enable_thinking``; None: the default of the chat template.

    Raises:
        Problem: 400 ``unsupported_option``.
    """
    if enable is None:
        return options, ()
    if "hybrid" not in version.family.model_ability:
        return options, (
            f"enable_thinking has no effect: {version.family.model_name} is not registered as a hybrid reasoning model",
        )
    if option is None:
        raise bad_request(
            f"{engine} does not support enable_thinking at a launch.",
            hint=f'Send "chat_template_kwargs": {{"enable_thinking": {json.dumps(enable)}}} with each request.',
            code=Code.UNSUPPORTED_OPTION,
        )
    variables = {"enable_thinking": option.form(enable)}
    user_variables = options.get(option.name)
    merged = {**variables, **user_variables} if isinstance(user_variables, Mapping) else variables
    return {**options, option.name: merged}, (f"thinking: {enable}",)
