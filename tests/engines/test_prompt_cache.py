from __future__ import annotations

from xinference.engines.llama_cpp.prompt_cache import cache_mib, extra_bytes
from xinference.launch.plan import Sizing
from xinference.units import GIB, MIB


def sizing(weights: int, cache: int, slots: int = 1) -> Sizing:
    return Sizing(context_length=4096, slots=slots, weights_bytes=weights, kv_cache_bytes=cache, overhead_bytes=0)


def test_the_cache_of_a_large_model_is_limited_and_that_of_a_small_one_is_a_quarter_of_its_plan() -> None:
    assert cache_mib(sizing(4 * GIB, 2 * GIB, slots=4), is_llm=True) == 512
    assert cache_mib(sizing(400 * MIB, 48 * MIB), is_llm=True) == 112


def test_a_small_model_has_no_cache_that_one_whole_context_would_exceed() -> None:
    smollm2 = sizing(94 * MIB, 90 * MIB)
    assert cache_mib(smollm2, is_llm=True) == 0
    assert extra_bytes({"cache_ram_mib": 0}, smollm2) == 90 * MIB
    assert cache_mib(sizing(94 * MIB, 90 * MIB, slots=4), is_llm=True) == 46, "a slot has a quarter of it"


def test_embedding_models_have_no_cache() -> None:
    assert cache_mib(sizing(4 * GIB, 0), is_llm=False) == 0
