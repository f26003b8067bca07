"""SGLang's memory model: vLLM's, with a fraction of the free memory that covers only weights and cache."""

from __future__ import annotations

from xinference.engines.memory_model import MemoryModel
from xinference.engines.torch_memory import TorchLoadedShape, chunk_later, served_cpu_overhead, served_cuda_overhead

MEMORY = MemoryModel(
    context_option="context_length",
    slots_option="max_running_requests",
    default_slots=16,
    splits="tensors",
    cuda_overhead=served_cuda_overhead,
    cpu_overhead=served_cpu_overhead,
    cpu_later=chunk_later,
    loaded_shape=TorchLoadedShape(cpu_type="bfloat16", type_option="dtype"),
    cell_padding=16,
    parallel_option="tp_size",
    fraction_option="mem_fraction_static",
    fraction_of="free",
    fraction_covers_overhead=False,
)
