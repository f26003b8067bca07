"""The metrics of the Transformers server, by their names in its common_routes.py. It has no prefix cache."""

from __future__ import annotations

from xinference.engines.engine_metrics import EngineMetrics

METRICS = EngineMetrics(
    path="/metrics",
    running="xinference_transformers_running",
    waiting="xinference_transformers_waiting",
    prompt_tokens=("xinference_transformers_prompt_tokens_total",),
    output_tokens="xinference_transformers_generated_tokens_total",
    draft_tokens="xinference_transformers_spec_decode_num_draft_tokens_total",
    accepted_tokens="xinference_transformers_spec_decode_num_accepted_tokens_total",
)
