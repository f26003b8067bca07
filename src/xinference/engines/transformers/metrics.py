"""The metrics of the Transformers server, by their names in its common_routes.py. It has no prefix cache."""

from __future__ import annotations

from xinference.engines.engine_metrics import EngineMetrics

METRICS = EngineMetrics(
    path="/metrics",
    running="xinference_transformers_running",
    waiting="xinference_transformers_waiting",
)
