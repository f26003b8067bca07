"""Schedules the computation of vectors and scores: groups waiting inputs of all requests by their length."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compute_thread import ComputeThread
from .length_groups import GPU_LIMITS, GroupLimits, cpu_limits, next_group, packed_limits
from .pooled_model import Input, PooledModel

#: Number of waiting inputs that are considered for one group; later ones wait.
MOST_CONSIDERED = 4096


class Job:
    """The inputs of one request, and their rows as they are computed. Created and awaited on the event loop."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.inputs = inputs
        self.cancelled = False
        self.turn = 0
        """The last step that computed one of its inputs, or the step before which it was submitted."""
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[list[Any] | None] = self._loop.create_future()
        self._rows: list[Any] = [None] * len(inputs)
        self._left = len(inputs)

    def take(self, position: int, row: Any) -> None:
        """Add a row; called from the computing thread."""
        self._rows[position] = row
        self._left -= 1
        if not self._left:
            self._loop.call_soon_threadsafe(self._finish, self._rows)

    def fail(self) -> None:
        """End the job without its rows; called from the computing thread."""
        self.cancelled = True
        self._loop.call_soon_threadsafe(self._finish, None)

    async def rows(self) -> list[Any] | None:
        """A row of numbers for each input; None: the model failed."""
        try:
            return await self._done
        finally:
            self.cancelled = True

    def _finish(self, rows: list[Any] | None) -> None:
        if not self._done.done():
            self._done.set_result(rows)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """One input of a job."""

    job: Job
    position: int

    @property
    def input(self) -> Input:
        return self.job.inputs[self.position]

    @property
    def length(self) -> int:
        """Tokens of the input."""
        return len(self.input.tokens)


class PooledScheduler(ComputeThread[Job]):
    """Computes the inputs of jobs, group by group."""

    def __init__(self, loaded: PooledModel) -> None:
        super().__init__()
        self._loaded = loaded
        self._limits = _limits_of(loaded)
        self._waiting: list[_Waiting] = []
        self._steps = 0

    @property
    def _is_busy(self) -> bool:
        return bool(self._waiting)

    def _add(self, work: Job) -> None:
        self.counters.prompt_tokens += sum(len(each.tokens) for each in work.inputs)
        work.turn = self._steps
        self._waiting += [_Waiting(work, position) for position in range(len(work.inputs))]
        self.counters.waiting = len(self._waiting)

    def _step(self) -> None:
        """Compute an input of the job that waits longest for its turn, and inputs of all jobs with about its length."""
        self._waiting = [each for each in self._waiting if not each.job.cancelled]
        self.counters.waiting = len(self._waiting)
        if not self._waiting:
            return
        self._steps += 1
        first = min(self._waiting, key=lambda each: each.job.turn)
        considered = [first, *(each for each in self._waiting[:MOST_CONSIDERED] if each is not first)]
        group = [considered[position] for position in next_group([each.length for each in considered], self._limits)]
        chosen = set(group)
        self._waiting = [each for each in self._waiting if each not in chosen]
        self.counters.running, self.counters.waiting = len(group), len(self._waiting)
        for each in group:
            each.job.turn = self._steps
        self._compute(group)
        self.counters.running = 0

    def _compute(self, group: Sequence[_Waiting]) -> None:
        try:
            rows = self._loaded.compute([each.input for each in group])
        except Exception:  # noqa: BLE001 -- out of memory or a defect of the model: the next request may succeed
            traceback.print_exc()
            for job in {id(each.job): each.job for each in group}.values():
                job.fail()
            return
        for each, row in zip(group, rows, strict=True):
            each.job.take(each.position, row)


def _limits_of(loaded: PooledModel) -> GroupLimits:
    if loaded.device.type != "cpu":
        return GPU_LIMITS
    return cpu_limits(loaded.hidden) if loaded.first_position is None else packed_limits(loaded.hidden)
