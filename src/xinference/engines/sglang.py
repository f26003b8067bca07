"""SGLang: what it runs. Starting it comes with engine environments."""

from __future__ import annotations

from xinference.engines.base import StaticTable

TABLE = StaticTable(
    engine="SGLang",
    formats={"pytorch": ("none",), "gptq": ("4-bit",), "awq": ("4-bit",)},
)
