"""Context and slots are chosen so that each slot holds the whole context at once."""

from __future__ import annotations

import pytest

from xinference.engines.llama_cpp.memory_model import MEMORY
from xinference.engines.transformers.memory_model import MEMORY as TRANSFORMERS
from xinference.errors import Problem
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import Sizing
from xinference.planning.memory import MemoryBudget, kv_bytes, size_replica

GIB = 1024**3
#: Llama-2 7B Q4_0: 32 layers, 32 heads of 128, 16-bit cache.
LLAMA_7B = ModelShape(
    weights_bytes=3_825_000_000, kv_bytes_per_token=32 * 32 * 128 * 2 * 2, trained_context=4096, vocab_size=32000
)
#: Llama-3.1 8B Q4_K_M: 32 layers, 8 key and value heads of 128.
LLAMA_3_8B = ModelShape(
    weights_bytes=4_920_000_000,
    kv_bytes_per_token=32 * 8 * 128 * 2 * 2,
    trained_context=131072,
    vocab_size=128256,
    hidden=4096,
)
#: SmolLM2 135M Q4_1: 30 layers, 3 key and value heads of 64.
SMOLLM2 = ModelShape(
    weights_bytes=98_000_000, kv_bytes_per_token=30 * 3 * 64 * 2 * 2, trained_context=8192, vocab_size=49152, hidden=576
)


def size_launch(shape: ModelShape, *, available_bytes: int, family_context: int, **requested: int) -> Sizing:
    """One replica of llama.cpp on the CPU."""
    return size_replica(shape, MEMORY, MemoryBudget(available_bytes), family_context=family_context, **requested)


def test_the_caches_of_all_slots_take_no_more_memory_than_the_rest_of_the_model() -> None:
    for shape, context, slots in ((LLAMA_7B, 4095, 1), (LLAMA_3_8B, 4096, 4), (SMOLLM2, 4096, 1)):
        sizing = size_launch(shape, available_bytes=64 * GIB, family_context=shape.trained_context)
        assert (sizing.context_length, sizing.slots) == (context, slots)
        assert sizing.kv_cache_bytes == slots * kv_bytes(shape, context, MEMORY.cell_padding)


def test_a_small_model_takes_less_than_350_mib() -> None:
    assert size_launch(SMOLLM2, available_bytes=64 * GIB, family_context=8192).total_bytes < 350 << 20


def test_a_small_host_gets_fewer_slots_before_it_gets_a_smaller_context() -> None:
    sizing = size_launch(LLAMA_3_8B, available_bytes=6 * GIB, family_context=131072)
    assert (sizing.context_length, sizing.slots) == (4096, 1)


def test_a_measurement_does_not_change_the_slots() -> None:
    for correction in (-(1 << 30), 1 << 30):
        budget = MemoryBudget(64 * GIB, correction_bytes=correction)
        assert size_replica(LLAMA_7B, MEMORY, budget, family_context=4096).slots == 1


def test_a_longer_context_and_more_slots_are_there_for_who_names_them() -> None:
    named = {"requested_context": 8191, "requested_slots": 4}
    sizing = size_launch(SMOLLM2, available_bytes=64 * GIB, family_context=8192, **named)
    assert (sizing.context_length, sizing.slots) == (8191, 4)
    assert size_launch(SMOLLM2, available_bytes=64 * GIB, family_context=8192, requested_context=8191).slots == 1


@pytest.mark.parametrize(
    ("free", "context", "slots"), [(24 * GIB, 32768, 3), (80 * GIB, 131071, 3), (140 * GIB, 131071, 4)]
)
def test_a_gpu_gets_the_context_of_which_one_slot_takes_a_quarter_of_it(free: int, context: int, slots: int) -> None:
    sizing = size_replica(LLAMA_3_8B, MEMORY, MemoryBudget(free, devices=1), family_context=131072)
    assert (sizing.context_length, sizing.slots) == (context, slots)


def test_a_cache_that_grows_as_it_fills_has_the_whole_context() -> None:
    sizing = size_replica(SMOLLM2, TRANSFORMERS, MemoryBudget(64 * GIB), family_context=8192)
    assert (sizing.context_length, sizing.slots) == (8191, 16)


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
    with pytest.raises(Problem, match=r"a context of 4000 tokens needs [\d,]+ MiB of memory, and 5,120 MiB are free"):
        size_launch(LLAMA_7B, available_bytes=5 * GIB, family_context=4096, requested_context=4000)


def test_slots_that_were_asked_for_are_kept_or_refused() -> None:
    assert size_launch(LLAMA_7B, available_bytes=64 * GIB, family_context=4096, requested_slots=9).slots == 9
    with pytest.raises(Problem, match="9 slots"):
        size_launch(LLAMA_7B, available_bytes=16 * GIB, family_context=4096, requested_slots=9)


def test_weights_alone_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Problem) as caught:
        size_launch(LLAMA_7B, available_bytes=2 * GIB, family_context=4096)
    # The smallest context has been tried, so a smaller one is no way out.
    assert caught.value.code == "does_not_fit"
    assert caught.value.hint == "Use a smaller quantization or size, or terminate another model."


def test_the_cache_is_rounded_up_to_whole_blocks_with_a_cell_for_the_answer() -> None:
    assert kv_bytes(LLAMA_7B, 255, MEMORY.cell_padding) == 256 * LLAMA_7B.kv_bytes_per_token
    assert kv_bytes(LLAMA_7B, 256, MEMORY.cell_padding) == 512 * LLAMA_7B.kv_bytes_per_token


def test_a_model_without_attention_has_slots_without_a_cache() -> None:
    shape = ModelShape(weights_bytes=GIB, kv_bytes_per_token=0, trained_context=512, vocab_size=1000)
    assert size_launch(shape, available_bytes=4 * GIB, family_context=512).slots == 4


def test_an_embedding_model_reads_as_many_tokens_as_its_files_say() -> None:
    shape = ModelShape(weights_bytes=GIB, kv_bytes_per_token=0, trained_context=256, vocab_size=1000, pooled=True)
    sizing = size_launch(shape, available_bytes=4 * GIB, family_context=512)
    assert sizing.context_length == 256
    assert "context 256: the longest input by the files of the model" in sizing.reasons
    asked = size_launch(shape, available_bytes=4 * GIB, family_context=512, requested_context=100)
    assert asked.context_length == 100
