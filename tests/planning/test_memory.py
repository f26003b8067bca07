"""Context and slots are chosen so that each slot holds the whole context at once."""

from __future__ import annotations

import pytest

from xinference.engines.llama_cpp.memory_model import MEMORY
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import Sizing
from xinference.planning.memory import MemoryBudget, kv_bytes, size_replica

GIB = 1024**3
#: Llama-2 7B Q4_0: 32 layers, 32 heads of 128, 16-bit cache.
LLAMA_7B = ModelShape(
    weights_bytes=3_825_000_000, kv_bytes_per_token=32 * 32 * 128 * 2 * 2, trained_context=4096, vocab_size=32000
)


def size_launch(shape: ModelShape, *, available_bytes: int, family_context: int, **requested: int) -> Sizing:
    """One replica of llama.cpp on the CPU."""
    return size_replica(shape, MEMORY, MemoryBudget(available_bytes), family_context=family_context, **requested)


def test_a_large_host_gives_every_slot_the_trained_context_less_the_first_answer_token() -> None:
    sizing = size_launch(LLAMA_7B, available_bytes=64 * GIB, family_context=4096)
    assert (sizing.context_length, sizing.slots) == (4095, 4)
    assert sizing.kv_cache_bytes == 4 * 4096 * LLAMA_7B.kv_bytes_per_token


def test_a_small_host_gets_fewer_slots_before_it_gets_a_smaller_context() -> None:
    sizing = size_launch(LLAMA_7B, available_bytes=10 * GIB, family_context=4096)
    assert (sizing.context_length, sizing.slots) == (4095, 2)


def test_a_host_too_small_for_the_whole_context_gets_what_fits_and_is_told() -> None:
    sizing = size_launch(LLAMA_7B, available_bytes=int(5 * GIB), family_context=4096)
    assert sizing.slots == 1
    assert 512 <= sizing.context_length < 4095
    assert (sizing.context_length + 1) % 256 == 0
    assert sizing.total_bytes <= 5 * GIB
    assert any("free memory" in reason for reason in sizing.reasons)


def test_a_context_that_was_asked_for_is_kept_or_refused_but_never_cut() -> None:
    assert (
        size_launch(LLAMA_7B, available_bytes=64 * GIB, family_context=4096, requested_context=1000).context_length
        == 1000
    )
    with pytest.raises(Problem, match=r"a context of 4000 tokens needs [\d,]+ MiB, and 5,120 MiB are free"):
        size_launch(LLAMA_7B, available_bytes=5 * GIB, family_context=4096, requested_context=4000)


def test_slots_that_were_asked_for_are_kept_or_refused() -> None:
    assert size_launch(LLAMA_7B, available_bytes=64 * GIB, family_context=4096, requested_slots=9).slots == 9
    with pytest.raises(Problem, match="9 slots"):
        size_launch(LLAMA_7B, available_bytes=16 * GIB, family_context=4096, requested_slots=9)


def test_weights_alone_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Problem) as caught:
        size_launch(LLAMA_7B, available_bytes=2 * GIB, family_context=4096)
    assert caught.value.code == "does_not_fit" and caught.value.hint is not None


def test_the_cache_is_rounded_up_to_whole_blocks_with_a_cell_for_the_answer() -> None:
    assert kv_bytes(LLAMA_7B, 255, MEMORY.cell_padding) == 256 * LLAMA_7B.kv_bytes_per_token
    assert kv_bytes(LLAMA_7B, 256, MEMORY.cell_padding) == 512 * LLAMA_7B.kv_bytes_per_token


def test_a_model_without_attention_has_slots_without_a_cache() -> None:
    shape = ModelShape(weights_bytes=GIB, kv_bytes_per_token=0, trained_context=512, vocab_size=1000)
    assert size_launch(shape, available_bytes=4 * GIB, family_context=512).slots == 4
