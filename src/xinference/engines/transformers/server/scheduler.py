"""Schedules the generation of text: adds submitted sequences to the batches, and steps these."""

from __future__ import annotations

import traceback

from .batching import Batch
from .compute_thread import ComputeThread
from .loading import LoadedModel
from .sequence import Sequence
from .speculation import MOST_DRAFTED


class Scheduler(ComputeThread[Sequence]):
    """Generates text: batches of sequences, one for the model and one for each adapter."""

    def __init__(self, loaded: LoadedModel, most_sequences: int, most_drafted: int = MOST_DRAFTED) -> None:
        super().__init__()
        self._most_sequences = most_sequences
        self._batches = {name: Batch(loaded, name, most_drafted) for name in (None, *loaded.adapters)}

    @property
    def _is_busy(self) -> bool:
        return any(batch.busy for batch in self._batches.values())

    def _add(self, work: Sequence) -> None:
        self.counters.prompt_tokens += work.prompt_length
        self._batches[work.adapter].add(work)

    def _step(self) -> None:
        for batch in self._batches.values():
            if batch.busy:
                self._step_batch(batch)
        self._count()

    def _step_batch(self, batch: Batch) -> None:
        free = self._most_sequences - sum(map(len, self._batches.values()))
        try:
            batch.step(free)
        except Exception:  # noqa: BLE001 -- out of memory or a defect of the model: the next request may succeed
            traceback.print_exc()
            batch.fail()

    def _count(self) -> None:
        batches = self._batches.values()
        self.counters.running = sum(map(len, batches))
        self.counters.waiting = sum(batch.waiting for batch in batches)
        self.counters.generated_tokens = sum(batch.generated for batch in batches)
        self.counters.spec_decode_num_draft_tokens = sum(batch.speculation.drafted for batch in batches)
        self.counters.spec_decode_num_accepted_tokens = sum(batch.speculation.accepted for batch in batches)
