"""The request fields that llama.cpp's server reads in addition to OpenAI's, with their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from xinference.engines.llama_cpp.field_rewrites import rewrite_native
from xinference.engines.native_fields import (
    Count,
    CountOrAll,
    LongText,
    NativeFields,
    Number,
    Share,
    ShortText,
    ShortTexts,
    UpTo20,
)

FromZero = Annotated[float, Meta(ge=0, le=1e9)]
#: How many of the last tokens a sampler looks at. llama.cpp takes memory for each, whatever the context is.
LastTokens = Annotated[int, Meta(ge=0, le=2**20)]
#: The fields of texts to tokenize, and of the middle of a text.
_OF_OTHER_PATHS = {
    "add_special": bool,
    "parse_special": bool,
    "with_pieces": bool,
    "input_extra": Annotated[list[dict[str, str]], Meta(max_length=1024)],
}
NATIVE = NativeFields(
    taken={
        # Length of the answer and use of the context.
        "max_tokens": CountOrAll,
        "max_completion_tokens": CountOrAll,
        "n_predict": CountOrAll,
        "n": Annotated[int, Meta(ge=1, le=128)],
        "n_cmpl": Annotated[int, Meta(ge=1, le=128)],
        "n_indent": Annotated[int, Meta(ge=0, le=1024)],
        "n_keep": CountOrAll,
        "n_discard": Count,
        "n_cache_reuse": Count,
        "t_max_predict_ms": CountOrAll,
        "cache_prompt": bool,
        "ignore_eos": bool,
        "seed": int,
        "stop": ShortText | ShortTexts,
        # Sampling.
        "temperature": Annotated[float, Meta(ge=0, le=2)],
        "top_p": Share,
        "top_k": CountOrAll,
        "min_p": Share,
        "min_keep": Annotated[int, Meta(ge=0, le=1024)],
        "top_n_sigma": Number,
        "typical_p": Share,
        "xtc_probability": Share,
        "xtc_threshold": Share,
        "dynatemp_range": FromZero,
        "dynatemp_exponent": Number,
        "repeat_penalty": Annotated[float, Meta(ge=1e-3, le=1e3)],
        "repeat_last_n": LastTokens,
        "presence_penalty": Number,
        "frequency_penalty": Number,
        "dry_multiplier": Number,
        "dry_base": Number,
        "dry_allowed_length": Count,
        "dry_penalty_last_n": LastTokens,
        "dry_sequence_breakers": Annotated[list[ShortText], Meta(min_length=1, max_length=64)],
        "mirostat": Annotated[int, Meta(ge=0, le=2)],
        "mirostat_tau": FromZero,
        "mirostat_eta": FromZero,
        "adaptive_target": Number,
        "adaptive_decay": Annotated[float, Meta(ge=0, le=0.99)],
        "samplers": Annotated[str, Meta(max_length=16)] | Annotated[list[ShortText], Meta(max_length=16)],
        # Contents of the answer.
        "n_probs": UpTo20,
        "post_sampling_probs": bool,
        "return_tokens": bool,
        "return_progress": bool,
        "timings_per_token": bool,
        "response_fields": ShortTexts,
        "sse_ping_interval": CountOrAll,
        # Constraints; `protocol.constraint_fields` checks their contents.
        "grammar": LongText,
        "json_schema": dict[str, Any],
        "preserved_tokens": ShortTexts,
        # Conversations.
        "reasoning_format": Literal["none", "auto", "deepseek", "deepseek-legacy"],
        "thinking_budget_tokens": CountOrAll,
        "reasoning_budget_tokens": CountOrAll,
        "reasoning_budget_message": ShortText,
        "add_generation_prompt": bool,
        "continue_final_message": bool | Literal["content", "reasoning_content"],
        "enable_thinking": bool,
        **_OF_OTHER_PATHS,
    },
    not_of_texts=frozenset(_OF_OTHER_PATHS),
    rewrite=rewrite_native,
    # They control the server's own parsers and slots; the server sets them itself for a conversation.
    refused=frozenset(
        {
            "id_slot", "lora", "grammar_lazy", "grammar_triggers", "grammar_type", "chat_format", "chat_parser",
            "generation_prompt", "parse_tool_calls", "backend_sampling", "reasoning_control",
            "reasoning_budget_start_tag", "reasoning_budget_end_tag", "reasoning_budget_end_tags", "chat_template",
            "verbose", "prompt_string", "multimodal_data",
        }
    ),
)  # fmt: skip
