"""Which launches of llama.cpp save the states of prompts, and the parameters for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.engines.llama_cpp import projector, prompt_cache, speculation
from xinference.engines.llama_cpp.memory_model import CELL_PADDING
from xinference.launch.plan import SizedPlan, Sizing
from xinference.units import MIB

#: The type of keys and values in the cache, for which the states are tested.
CACHE_TYPE = "GGML_TYPE_F16"
#: The options with which a user controls llama.cpp's own use of slots, which is then left as it is.
OWN_CONTROL = frozenset(
    {"cache_idle_slots", "cache_prompt", "n_cache_reuse", "slot_prompt_similarity", "ctx_shift", "sleep_idle_seconds"}
)
#: The options of a model that drafts tokens: its own keys and values are not in a saved state.
DRAFTS = frozenset({speculation.DRAFT, "load_mtp"})


def state_bytes(plan: SizedPlan) -> int:
    """Maximum size of the saved states in memory; 0: the launch saves none.

    They replace llama.cpp's own cache of prompts and may be as large as that.
    """
    options, sizing = plan.options, plan.sizing
    if plan.version.family.model_type != "LLM" or options.get("embedding") or options.get(projector.OPTION):
        return 0
    if any(options.get(name) for name in DRAFTS) or OWN_CONTROL & options.keys():
        return 0
    if any(options.get(name, CACHE_TYPE) != CACHE_TYPE for name in ("cache_type_k", "cache_type_v")):
        return 0
    allowed = min(prompt_cache.MAX_MIB, sizing.total_bytes // prompt_cache.SHARE // MIB)
    return max(0, int(options.get(prompt_cache.OPTION, allowed))) * MIB


def parameters(folder: Path, sizing: Sizing) -> Mapping[str, Any]:
    """The parameters of a replica that saves states in `folder`.

    llama.cpp would move an idle slot's prompt to its own cache as soon as another slot gets a request, also one that
    has just been restored for a request that is on its way. Each slot has cells of its own: in one cache for all slots,
    the attention of each token visits the cells of every slot, so that prompts in idle slots slow the others down.
    """
    cells = -(-(sizing.context_length + 1) // CELL_PADDING) * CELL_PADDING
    return {
        "slot_save_path": f"{folder}/",
        prompt_cache.OPTION: 0,
        "cache_idle_slots": False,
        "kv_unified": False,
        "n_ctx": cells * sizing.slots,
    }
