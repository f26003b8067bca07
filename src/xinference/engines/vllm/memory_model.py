"""vLLM's memory model."""

from __future__ import annotations

from xinference.engines.torch_memory import served_memory_model
from xinference.engines.vllm.packings import ONLINE

MEMORY = served_memory_model(
    online=ONLINE,
    context_option="max_model_len",
    slots_option="max_num_seqs",
    parallel_option="tensor_parallel_size",
    fraction_option="gpu_memory_utilization",
)
