"""Which launches of llama.cpp save the states of prompts, and how many bytes of them."""

from __future__ import annotations

from xinference.engines.llama_cpp import projector, prompt_cache, speculation
from xinference.launch.plan import ResolvedLaunch, Sizing
from xinference.units import MIB

#: The type of keys and values in the cache, for which the states are tested.
CACHE_TYPE = "GGML_TYPE_F16"
#: The options with which a user controls llama.cpp's own use of slots, which is then left as it is.
OWN_CONTROL = frozenset(
    {"cache_idle_slots", "cache_prompt", "n_cache_reuse", "slot_prompt_similarity", "ctx_shift", "sleep_idle_seconds"}
)
#: The options of a model that drafts tokens: its own keys and values are not in a saved state.
DRAFTS = frozenset({speculation.DRAFT, "load_mtp"})


def state_bytes(launch: ResolvedLaunch, sizing: Sizing) -> int:
    """Maximum size of the saved states in memory; 0: the launch saves none.

    They replace llama.cpp's own cache of prompts and may be as large as that. On a GPU, a state goes through the host's
    memory, and nobody has measured whether that is faster than its computation: only a launch that names their size
    saves states there.
    """
    options = launch.options
    if launch.use_gpu and prompt_cache.OPTION not in options:
        return 0
    if launch.version.family.model_type != "LLM" or options.get("embedding") or options.get(projector.OPTION):
        return 0
    if any(options.get(name) for name in DRAFTS) or OWN_CONTROL & options.keys():
        return 0
    if any(options.get(name, CACHE_TYPE) != CACHE_TYPE for name in ("cache_type_k", "cache_type_v")):
        return 0
    allowed = min(prompt_cache.MAX_MIB, sizing.engine_bytes // prompt_cache.SHARE // MIB)
    return max(0, int(options.get(prompt_cache.OPTION, allowed))) * MIB
