"""Counters for /metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """The work of a scheduler since its start, and at this moment."""

    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    running: int = 0
    waiting: int = 0
    compute_seconds: float = 0.0
    # The names are those of vLLM's metrics.
    spec_decode_num_draft_tokens: int = 0
    spec_decode_num_accepted_tokens: int = 0
