"""Transformers: what it runs. Starting it comes with engine environments."""

from __future__ import annotations

from xinference.engines.base import StaticTable

TABLE = StaticTable(engine="Transformers", formats={"pytorch": ("none", "8-bit", "4-bit")})
