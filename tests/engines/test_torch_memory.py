"""What engines make of stored weights: widened, narrowed or packed, and what they hold twice."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from xinference.engines.registry import all_engines
from xinference.launch.model_shape import ModelShape
from xinference.planning.memory import MemoryBudget, MemoryEstimate

ENGINES = all_engines()
#: 1000 weights of 16 bits that layers multiply by, 200 beside.
STORED = ModelShape(
    weights_bytes=2400, kv_bytes_per_token=80, trained_context=512, vocab_size=10, linear_bytes=2000, hidden=4
)


def held(engine: str, quantization: str = "none", *, on_cpu: bool = True, **options: Any) -> ModelShape:
    return ENGINES[engine].memory.loaded_shape(STORED, "pytorch", quantization, options, on_cpu=on_cpu)


def test_transformers_widens_weights_and_cache_to_32_bits_on_the_cpu() -> None:
    assert (held("Transformers").weights_bytes, held("Transformers").kv_bytes_per_token) == (4800, 160)
    assert held("Transformers", torch_dtype="bfloat16") == STORED
    assert held("Transformers", on_cpu=False) == STORED


def test_vllm_computes_in_16_bits_whatever_was_stored() -> None:
    assert held("vLLM") == STORED
    stored = ModelShape(4800, 80, 512, 10, element_bytes=4)
    wide = ENGINES["vLLM"].memory.loaded_shape(stored, "pytorch", "none", {}, on_cpu=True)
    assert (wide.weights_bytes, wide.kv_bytes_per_token) == (2400, 80)


@pytest.mark.parametrize(("quantization", "packed"), [("8-bit", 1000), ("4-bit", 562)])
def test_bitsandbytes_packs_the_layers_and_leaves_the_vocabulary(quantization: str, packed: int) -> None:
    for on_cpu in (True, False):
        shape = held("Transformers", quantization, on_cpu=on_cpu)
        assert shape.weights_bytes == 400 + packed and shape.bitsandbytes


def test_weights_that_are_packed_already_are_counted_as_they_are() -> None:
    known = ModelShape(weights_bytes=900, kv_bytes_per_token=80, trained_context=512, vocab_size=10)
    assert ENGINES["Transformers"].memory.loaded_shape(known, "pytorch", "4-bit", {}, on_cpu=True).weights_bytes == 900
    assert ENGINES["vLLM"].memory.loaded_shape(known, "gptq", "Int4", {}, on_cpu=True) == known


def test_a_cache_that_grows_is_promised_but_not_there_at_the_start() -> None:
    sizing = MemoryEstimate(STORED, ENGINES["Transformers"].memory, MemoryBudget(1 << 40)).sizing(511, 4, ())
    assert sizing.kv_cache_bytes == 4 * 512 * 80
    assert sizing.loaded_bytes == 2400 + (376 << 20)


def test_matrices_are_counted_as_kept_only_where_they_are_small() -> None:
    # Two layers of 64 with as many key heads as query heads: 3 x 64 x 64 and 64 x 64, then 2 x 64 x 128 and 64 x 128.
    shape = ModelShape(1 << 20, 0, 512, 10, hidden=64, heads=4, layers=2, linear_bytes=2 * 2 * 10 * 4096)
    assert shape.small_linear_bytes(1 << 20) == shape.linear_bytes
    assert shape.small_linear_bytes(6 * 4096) == 2 * 2 * 4096 * (1 + 2)
    assert ModelShape(1 << 20, 0, 512, 10, linear_bytes=4096).small_linear_bytes(1 << 20) == 0


def test_transformers_counts_the_activations_of_a_vision_tower_and_the_decoded_images() -> None:
    def overhead(architecture: str, context: int, *, on_cpu: bool = True) -> int:
        shape = msgspec.structs.replace(STORED, vision_elements=64, architecture=architecture, trained_context=1 << 20)
        memory = ENGINES["Transformers"].memory
        loaded = memory.loaded_shape(shape, "pytorch", "none", {}, on_cpu=on_cpu)
        budget = MemoryBudget(1 << 50) if on_cpu else MemoryBudget(1 << 50, devices=1)
        return MemoryEstimate(loaded, memory, budget).sizing(context, 1, ()).overhead_bytes

    reads, blind = "LlavaForConditionalGeneration", "Llama4ForConditionalGeneration"
    assert overhead(reads, 1000) - overhead(blind, 1000) == 1000 * 64 * 24 * 4 + 17 * 64_000_000
    assert overhead(reads, 1000, on_cpu=False) - overhead(blind, 1000, on_cpu=False) == 1000 * 64 * 24 * 2
    # A prompt has at most 16384 tokens of images.
    assert overhead(reads, 99_999) - overhead(blind, 99_999) == 16384 * 64 * 24 * 4 + 17 * 64_000_000


def test_transformers_packs_no_weights_of_a_vision_tower() -> None:
    stored = msgspec.structs.replace(STORED, vision_bytes=400, architecture="LlavaForConditionalGeneration")
    for engine, packed in (("Transformers", 400 + 400 + 800), ("vLLM", 400 + 1000)):
        memory = ENGINES[engine].memory
        assert memory.loaded_shape(stored, "pytorch", "8-bit", {}, on_cpu=False).weights_bytes == packed, engine
