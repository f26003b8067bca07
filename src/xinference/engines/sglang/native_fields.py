"""The request fields that SGLang's server reads in addition to OpenAI's, with their bounds."""

from __future__ import annotations

from typing import Any

from xinference.engines.native_fields import (
    Count,
    CountOrAll,
    LongText,
    NativeFields,
    Share,
    ShortText,
    ShortTexts,
)

NATIVE = NativeFields(
    taken={
        "top_k": CountOrAll,
        "min_p": Share,
        "min_tokens": Count,
        "json_schema": LongText | dict[str, Any],
        "regex": LongText,
        "ebnf": LongText,
        "stop_regex": ShortText | ShortTexts,
        "no_stop_trim": bool,
        "skip_special_tokens": bool,
        "continue_final_message": bool,
        "separate_reasoning": bool,
        "stream_reasoning": bool,
        "return_cached_tokens_details": bool,
        "return_token_ids": bool,
        "return_prompt_token_ids": bool,
        "cache_salt": ShortText,
        "add_special_tokens": bool,
    },
    # They load code or adapters, name other machines and sessions, or bypass the queue.
    refused=frozenset(
        {
            "custom_logit_processor", "custom_params", "lora_path", "session_id", "session_params", "bootstrap_host",
            "bootstrap_port", "bootstrap_room", "routed_dp_rank", "disagg_prefill_dp_rank", "data_parallel_rank", "rid",
            "extra_key", "ngram_corpus_id", "custom_labels", "return_hidden_states",
            "return_routed_experts", "routed_experts_start_len", "return_meta_info", "images_config", "input_ids",
            "input_embeds", "image_data", "audio_data", "video_data", "max_dynamic_patch", "min_dynamic_patch",
            "use_audio_in_video", "task", "chat_template",
        }
    ),
)  # fmt: skip
