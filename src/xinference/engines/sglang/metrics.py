"""SGLang's own metrics, by their names in sglang/srt/observability/metrics_collector.py."""

from __future__ import annotations

from xinference.engines.engine_metrics import EngineMetrics

METRICS = EngineMetrics(
    path="/metrics",
    running="sglang:num_running_reqs",
    waiting="sglang:num_queue_reqs",
    divided_by="priority",
    kv_cache_ratio="sglang:token_usage",
    prefix_queries=("sglang:prompt_tokens_total",),
    prefix_hits="sglang:cached_tokens_total",
    preemptions="sglang:num_retracted_requests_total",
    prompt_tokens=("sglang:prompt_tokens_total",),
    output_tokens="sglang:generation_tokens_total",
)
