"""The only thread that computes: adds submitted sequences to the batches, and steps these until all are complete."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable

import torch

from .batching import Batch
from .counters import Counters
from .loading import LoadedModel
from .sequence import Sequence


class Scheduler:
    """Owns the model; all other code only submits sequences to it."""

    def __init__(self, loaded: LoadedModel, most_sequences: int) -> None:
        self.counters = Counters()
        self._most_sequences = most_sequences
        self._new: queue.SimpleQueue[Sequence | Callable[[], object]] = queue.SimpleQueue()
        self._batches = {name: Batch(loaded, name) for name in (None, *loaded.adapters)}

    def start(self) -> None:
        """Start; the thread ends with the process."""
        threading.Thread(target=self._run, name="scheduler", daemon=True).start()

    def submit(self, sequence: Sequence) -> None:
        """Submit a sequence; its `deliver` is called from the scheduler's thread."""
        self._new.put(sequence)

    def call_after_step(self, function: Callable[[], object]) -> None:
        """Call `function` from the scheduler's thread before its next step."""
        self._new.put(function)

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                self._take_new()
                began = time.monotonic()
                for batch in self._batches.values():
                    if batch.busy:
                        self._step(batch)
                self._count(time.monotonic() - began)

    def _take_new(self) -> None:
        """Add the submitted sequences to their batches; if there is nothing to compute, wait for one."""
        while not self._new.empty() or not any(batch.busy for batch in self._batches.values()):
            sequence = self._new.get()
            if not isinstance(sequence, Sequence):
                sequence()
                continue
            self.counters.requests += 1
            self.counters.prompt_tokens += sequence.prompt_length
            self._batches[sequence.adapter].add(sequence)

    def _step(self, batch: Batch) -> None:
        free = self._most_sequences - sum(map(len, self._batches.values()))
        try:
            batch.step(free)
        except Exception:  # noqa: BLE001  # out of memory or a defect of the model: the next request may succeed
            traceback.print_exc()
            batch.fail()

    def _count(self, seconds: float) -> None:
        batches = self._batches.values()
        self.counters.compute_seconds += seconds
        self.counters.running = sum(map(len, batches))
        self.counters.waiting = sum(batch.waiting for batch in batches)
        self.counters.generated_tokens = sum(batch.generated for batch in batches)
