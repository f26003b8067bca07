"""Computes the size of llama.cpp's RAM cache, which stores the states of prompts that have lost their slot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.launch.plan import Sizing
from xinference.units import MIB

OPTION = "cache_ram_mib"
#: Maximum size of the cache, unless the launch names another one.
MAX_MIB = 512
#: Part of the planned memory that the cache may add to it.
SHARE = 4


def cache_mib(sizing: Sizing, *, is_llm: bool) -> int:
    """The size of the cache for a plan, in MiB; 0: no cache.

    llama.cpp keeps at least one state, whatever the limit, so a cache that is smaller than the state of a whole context
    would exceed its limit.
    """
    allowed = min(MAX_MIB, sizing.engine_bytes // SHARE // MIB)
    state = sizing.kv_cache_bytes / max(1, sizing.slots)
    return allowed if is_llm and allowed * MIB >= state else 0


def extra_bytes(params: Mapping[str, Any], sizing: Sizing) -> int | None:
    """Memory in addition to the plan: the cache, and the checkpoints of the contexts. None: no limit."""
    limit = params[OPTION]
    return None if limit < 0 else limit * MIB + sizing.kv_cache_bytes
