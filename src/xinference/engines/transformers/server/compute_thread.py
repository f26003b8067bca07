"""The only thread that computes: it takes the work that others submit, and steps the model until all is complete."""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from .counters import Counters

Work = TypeVar("Work")


class ComputeThread(ABC, Generic[Work]):
    """Owns the model; all other code only submits work to it."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._new: queue.SimpleQueue[tuple[Work] | Callable[[], object]] = queue.SimpleQueue()

    def start(self) -> None:
        """Start; the thread ends with the process."""
        threading.Thread(target=self._run, name="scheduler", daemon=True).start()

    def submit(self, work: Work) -> None:
        """Submit work; its results are passed on from this thread."""
        self._new.put((work,))

    def call_after_step(self, function: Callable[[], object]) -> None:
        """Call `function` from this thread before its next step."""
        self._new.put(function)

    @property
    @abstractmethod
    def _is_busy(self) -> bool:
        """Whether there is something to compute."""

    @abstractmethod
    def _add(self, work: Work) -> None:
        """Add submitted work to what is computed."""

    @abstractmethod
    def _step(self) -> None:
        """Compute one step."""

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                self._take_new()
                began = time.monotonic()
                self._step()
                self.counters.compute_seconds += time.monotonic() - began

    def _take_new(self) -> None:
        """Add the submitted work; if there is nothing to compute, wait for some."""
        while not self._new.empty() or not self._is_busy:
            new = self._new.get()
            if not isinstance(new, tuple):
                new()
                continue
            self.counters.requests += 1
            self._add(new[0])
