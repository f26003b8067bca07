"""llama.cpp's own metrics, by their names in tools/server/server-context.cpp, and the use of its KV cache by /slots."""

from __future__ import annotations

import msgspec

from xinference.engines.engine_metrics import EngineMetrics


class _Slot(msgspec.Struct):
    """One sequence that llama.cpp can compute."""

    n_ctx: int = 0
    """Tokens for which the slot has keys and values."""
    is_processing: bool = False
    n_prompt_tokens: int = 0
    """Tokens in the slot's cache: those of the prompt and those of the answer until now."""


_decode = msgspec.json.Decoder(list[_Slot]).decode


def cache_ratio(answer: bytes) -> float | None:
    """The share of the KV cache that the slots with a request use; the cached prompts of the others do not count."""
    try:
        slots = _decode(answer)
    except msgspec.MsgspecError:
        return None
    total = sum(slot.n_ctx for slot in slots)
    return sum(slot.n_prompt_tokens for slot in slots if slot.is_processing) / total if total else None


METRICS = EngineMetrics(
    path="/metrics",
    running="llamacpp:requests_processing",
    waiting="llamacpp:requests_deferred",
    prefix_queries=("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
    prefix_hits="llamacpp:prompt_tokens_cached_total",
    cache_path="/slots",
    read_cache=cache_ratio,
    prompt_tokens=("llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"),
    output_tokens="llamacpp:tokens_predicted_total",
)
