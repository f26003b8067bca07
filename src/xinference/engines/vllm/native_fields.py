"""The request fields that vLLM's server reads in addition to OpenAI's, with their bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from xinference.engines.native_fields import (
    Count,
    CountOrAll,
    LongText,
    NativeFields,
    Number,
    Share,
    ShortText,
    ShortTexts,
    TokenList,
    UpTo20,
)


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """The constraints of an answer; `protocol.constraint_fields` checks their contents."""

    json: str | dict[str, Any] | None = None
    regex: LongText | None = None
    choice: list[str] | None = None
    grammar: LongText | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool | None = None
    whitespace_pattern: ShortText | None = None


NATIVE = NativeFields(
    taken={
        "top_k": CountOrAll,
        "min_p": Share,
        "min_tokens": Count,
        "length_penalty": Number,
        "use_beam_search": bool,
        "include_stop_str_in_output": bool,
        "skip_special_tokens": bool,
        "spaces_between_special_tokens": bool,
        "truncate_prompt_tokens": CountOrAll,
        "truncation_side": Literal["left", "right"],
        "prompt_logprobs": UpTo20,
        "logprob_token_ids": Annotated[list[Count], Meta(min_length=1, max_length=128)],
        "allowed_token_ids": TokenList,
        "bad_words": ShortTexts,
        "thinking_token_budget": CountOrAll,
        "include_reasoning": bool,
        "repetition_detection": dict[str, int],
        "return_tokens_as_token_ids": bool,
        "return_token_ids": bool,
        "stream_interval": Annotated[int, Meta(ge=1, le=1024)],
        "echo": bool,
        "add_generation_prompt": bool,
        "continue_final_message": bool,
        "add_special_tokens": bool,
        "documents": Annotated[list[dict[str, LongText]], Meta(max_length=1024)],
        "structured_outputs": StructuredOutputs,
        "cache_salt": Annotated[str, Meta(min_length=1, max_length=1024)],
        # Embeddings and reranking.
        "normalize": bool,
        "use_activation": bool,
        "instruction": ShortText,
        # Tokens.
        "return_token_strs": bool,
    },
    # They load code or tensors, name other machines, bypass the queue, or render a template of the client.
    refused=frozenset(
        {
            "chat_template", "media_io_kwargs", "mm_processor_kwargs", "prompt_embeds", "kv_transfer_params",
            "ec_transfer_params", "vllm_xargs", "logits_processors", "session_id", "return_prompt_text",
            "return_mm_kwargs", "return_token_offsets", "routed_experts_prompt_start", "watermarking",
            "guided_decoding_backend", "guided_whitespace_pattern", "structural_tag", "mcp_servers",
        }
    ),
)  # fmt: skip
