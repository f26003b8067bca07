"""Fields of a chat or a completion that may be arguments of `chat` and `generate`, outside of `generate_config`."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

#: Of both APIs, and of sampling in all engines.
COMMON = frozenset(
    {
        "stream", "request_id", "user", "safety_identifier", "metadata", "service_tier", "temperature", "top_p",
        "priority", "top_k", "min_p", "max_tokens", "n", "presence_penalty", "frequency_penalty", "repetition_penalty",
        "logit_bias", "stop", "stop_token_ids", "seed", "response_format", "stream_options", "ignore_eos",
        "lora_name", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_json_object",
        "logprobs",
    }
)  # fmt: skip
CHAT = COMMON | {
    "max_completion_tokens", "top_logprobs", "tool_choice", "parallel_tool_calls", "reasoning_effort",
    "chat_template_kwargs", "audio", "function_call", "functions", "modalities", "prediction", "prompt_cache_key",
    "prompt_cache_retention", "store", "verbosity", "web_search_options",
}  # fmt: skip
COMPLETION = COMMON | {"echo", "best_of", "suffix"}


def check_further(method: str, fields: Mapping[str, Any], known: Collection[str]) -> None:
    """Check the names of the further arguments of a method.

    Raises:
        TypeError: a name is no field of the request: a typing error would be sent and have no effect.
    """
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "generate_config"], n=1)
            did_you_mean = f" Did you mean {near[0]}?" if near else ""
            raise TypeError(
                f"{method}() got an unexpected argument {name!r}.{did_you_mean} Fields of the engine go into "
                f"generate_config={{{name!r}: …}}."
            )
