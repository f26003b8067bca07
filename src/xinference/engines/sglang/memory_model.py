"""SGLang's memory model: vLLM's, with a fraction of the free memory that covers only weights and cache."""

from __future__ import annotations

from xinference.engines.sglang.packings import ONLINE
from xinference.engines.torch_memory import served_memory_model

MEMORY = served_memory_model(
    online=ONLINE,
    context_option="context_length",
    slots_option="max_running_requests",
    parallel_option="tp_size",
    fraction_option="mem_fraction_static",
    fraction_of="free",
    fraction_covers_overhead=False,
)
