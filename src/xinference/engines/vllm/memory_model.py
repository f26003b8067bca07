"""vLLM's memory model."""

from __future__ import annotations

from xinference.engines.memory_model import MemoryModel
from xinference.engines.torch_memory import TorchLoadedShape, chunk_later, served_cpu_overhead, served_cuda_overhead

MEMORY = MemoryModel(
    context_option="max_model_len",
    slots_option="max_num_seqs",
    default_slots=16,
    splits="tensors",
    cuda_overhead=served_cuda_overhead,
    cpu_overhead=served_cpu_overhead,
    cpu_later=chunk_later,
    loaded_shape=TorchLoadedShape(cpu_type="bfloat16", type_option="dtype"),
    cell_padding=16,
    parallel_option="tensor_parallel_size",
    fraction_option="gpu_memory_utilization",
)
