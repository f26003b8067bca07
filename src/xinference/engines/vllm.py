"""vLLM: what it runs. Starting it comes with engine environments."""

from __future__ import annotations

from xinference.engines.base import StaticTable

TABLE = StaticTable(
    engine="vLLM",
    formats={"pytorch": ("none",), "gptq": ("3-bit", "4-bit", "8-bit"), "awq": ("4-bit",)},
    model_types=("LLM", "embedding", "rerank"),
)
