"""The answer about the engine of a model, for the OpenAPI document."""

from __future__ import annotations

from pydantic import Field

from xinference.api.schemas import Answer


class EngineReplica(Answer):
    """What the engine of one replica reports of itself; null: it does not report it. Counts are since its start."""

    node: str
    node_names: list[str] | None = Field(default=None, description="The names of its machines; only in a cluster")
    replica: int
    replica_id: str = Field(description="The label `replica` of the metrics")
    engine: str
    running: float | None = Field(description="Requests that it computes now")
    waiting: float | None = Field(description="Requests in its own queue")
    kv_cache_ratio: float | None = Field(description="Share of the KV cache that running requests use, 0 to 1")
    prefix_queries: float | None = Field(description="Prompt tokens that were looked up in the prefix cache")
    prefix_hits: float | None = Field(description="Those of them that were found")
    preemptions: float | None = Field(description="Requests that were interrupted because the KV cache was full")
    prompt_tokens: float | None = Field(description="Tokens of prompts, also those found in the prefix cache")
    output_tokens: float | None = Field(description="Tokens that it has generated")
    draft_tokens: float | None = Field(description="Tokens that it has drafted by speculative decoding")
    accepted_tokens: float | None = Field(description="Those of them that became tokens of an answer")
    problem: str | None = Field(
        description="Why not: timeout, refused, unreachable, too_large; other_node: engines of workers are not asked"
    )
