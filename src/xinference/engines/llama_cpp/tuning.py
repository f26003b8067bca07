"""What `xinference tune` tries on llama.cpp. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.hardware.devices import Host

Change = Mapping[str, Any]

#: Sizes of the batches in which prompts are computed.
MICRO_BATCHES = (64, 128, 256, 512)
_NGRAMS = ("COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE", "COMMON_SPECULATIVE_TYPE_NGRAM_MOD")


def groups(host: Host, slots: int, *, any_answers: bool) -> list[list[Change]]:
    """The changes to try, by their own names; of each group the best one is kept, and the next group adds to it.

    Args:
        slots: the number of slots of a launch without an option.
        any_answers: also changes that change the answers.
    """
    cores = host.physical_cores
    threads = sorted({max(1, cores // 2), max(1, cores - 1)})
    found: list[list[Change]] = [
        [{"cpuparams.n_threads": count} for count in threads],
        [{"cpuparams_batch.n_threads": count} for count in (*threads, 2 * cores)],
        [{"n_ubatch": size} for size in MICRO_BATCHES],
        [{"flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_DISABLED"}],  # it is on by itself wherever there are kernels for it
        [{"n_parallel": 2 * slots}],
    ]
    if any_answers:
        # llama.cpp reports a log probability of 0 for each token that was drafted.
        found.append([{"speculative.types": [name]} for name in _NGRAMS])
        found.append([{"cache_type_k": "GGML_TYPE_Q8_0", "cache_type_v": "GGML_TYPE_Q8_0"}])
    return found
