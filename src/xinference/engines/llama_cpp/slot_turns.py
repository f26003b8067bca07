"""The requests that wait for an idle slot of one replica, in the order of their turns."""

from __future__ import annotations

import asyncio

#: The number of requests of a higher priority that may pass one that waits.
MAX_PASSED = 8


class _Turn:
    __slots__ = ("future", "passed", "priority")

    def __init__(self, future: asyncio.Future[None], priority: int) -> None:
        self.future, self.priority = future, priority
        self.passed = 0


class SlotTurns:
    """The waiting requests; a lower number of the priority comes first, and of equal ones the older."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []

    def __len__(self) -> int:
        return len(self._turns)

    def add(self, future: asyncio.Future[None], priority: int) -> None:
        """Add a request behind those of its priority and of higher ones, and behind those that many have passed."""
        position = len(self._turns)
        while position and self._may_pass(self._turns[position - 1], priority):
            position -= 1
            self._turns[position].passed += 1
        self._turns.insert(position, _Turn(future, priority))

    def add_first(self, future: asyncio.Future[None], priority: int) -> None:
        """Add a request whose turn has come, but for which too few slots were idle."""
        self._turns.insert(0, _Turn(future, priority))

    def take(self) -> asyncio.Future[None]:
        """Remove the first request."""
        return self._turns.pop(0).future

    def remove(self, future: asyncio.Future[None]) -> None:
        """Remove a request, if it waits."""
        self._turns = [turn for turn in self._turns if turn.future is not future]

    @staticmethod
    def _may_pass(turn: _Turn, priority: int) -> bool:
        return turn.priority > priority and turn.passed < MAX_PASSED
