"""Whether a hybrid model thinks before it answers: what an engine is told when a launch says so. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from xinference.catalog.models import ModelVersion
from xinference.errors import bad_request

#: Each engine's option for what every chat template is given, and how it takes a value there: llama.cpp as JSON.
_OPTIONS: dict[str, tuple[str, Callable[[bool], bool | str]]] = {
    "llama.cpp": ("default_template_kwargs", json.dumps),
    "vLLM": ("default_chat_template_kwargs", bool),
    "SGLang": ("default_chat_template_kwargs", bool),
}


def with_thinking(
    engine: str, version: ModelVersion, wanted: bool | None, options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The engine's options with the choice among them, and the reasons for the plan.

    What requests say themselves (``chat_template_kwargs``) wins over it.

    Raises:
        Problem: 400, the engine has no word for it.
    """
    if wanted is None:
        return options, ()
    if "hybrid" not in version.family.model_ability:
        name = version.family.model_name
        return options, (f"enable_thinking changes nothing: {name} is not known as a model that can be told to think",)
    if engine not in _OPTIONS:
        raise bad_request(
            f"enable_thinking can't be given to {engine} at a launch.",
            hint=f'Send "chat_template_kwargs": {{"enable_thinking": {json.dumps(wanted)}}} with each request.',
            code="unsupported_option",
        )
    option, form = _OPTIONS[engine]
    said = {"enable_thinking": form(wanted)}
    given = options.get(option)
    return {**options, option: {**said, **given} if isinstance(given, Mapping) else said}, (f"thinking: {wanted}",)
