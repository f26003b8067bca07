"""vLLM's own metrics, by their names in vllm/v1/metrics/loggers.py."""

from __future__ import annotations

from xinference.engines.engine_metrics import EngineMetrics

METRICS = EngineMetrics(
    path="/metrics",
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    kv_cache_ratio="vllm:kv_cache_usage_perc",
    prefix_queries=("vllm:prefix_cache_queries_total",),
    prefix_hits="vllm:prefix_cache_hits_total",
    preemptions="vllm:num_preemptions_total",
    prompt_tokens=("vllm:prompt_tokens_total",),
    output_tokens="vllm:generation_tokens_total",
    draft_tokens="vllm:spec_decode_num_draft_tokens_total",
    accepted_tokens="vllm:spec_decode_num_accepted_tokens_total",
)
