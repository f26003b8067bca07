"""The parameters of a replica of llama.cpp that saves the states of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xinference.engines.llama_cpp import prompt_cache
from xinference.engines.llama_cpp.memory_model import CELL_PADDING
from xinference.launch.plan import Sizing


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
