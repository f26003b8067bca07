"""The queue before the places at a model's engines: clients get a place in turn, so that no client can hold a model.

A client is a key, or an address where no key is required. Of the clients that wait, the one with the fewest requests
in flight at the model is next; of equal ones, the one whose last turn is the longest ago.

Requests of a higher priority come first. A lower level gets a place at the latest after `MAX_PASSED` others.
"""

from __future__ import annotations

import asyncio
from collections import deque

from xinference.error_codes import Code
from xinference.gateway.priority import LOW, NORMAL
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route

#: The number of requests that a replica is assumed to compute at the same time if its plan does not say.
UNKNOWN_SLOTS = 256
RETRY_AFTER_SECONDS = 5
#: The queues of models without a request are removed when there are this many queues.
MAX_UNUSED = 64
#: The number of places that go to higher levels while a level waits; the next one is its own.
MAX_PASSED = 8

#: Requests that wait, by client; the client whose last turn is the longest ago comes first.
_Waiting = dict[str, deque[asyncio.Future[None]]]


def places(route: Route) -> int:
    """The number of requests that are sent to the engines of a route at the same time.

    Some more than the engines compute: without them, an engine would wait for the gateway after each answer.
    """
    slots = route.slots or UNKNOWN_SLOTS
    return (slots + (slots // 4 or 1)) * len(route.targets)


class _ModelQueue:
    """The requests of one deployment."""

    __slots__ = ("count", "held", "in_flight", "levels", "passed", "places")

    def __init__(self) -> None:
        self.places = 1
        """The number of requests that may be in flight."""
        self.in_flight = 0
        self.held: dict[str, int] = {}
        """Requests in flight by client."""
        self.levels: tuple[_Waiting, ...] = tuple({} for _ in range(LOW + 1))
        """Requests that wait, the highest priority first."""
        self.passed = [0] * (LOW + 1)
        """The places that have gone to higher levels since the last one of each level that waits."""
        self.count = 0
        """The number of requests that wait."""

    def next_level(self) -> int:
        """The level that gets the next place; one of them waits."""
        waiting = [level for level, clients in enumerate(self.levels) if clients]
        chosen = max(waiting, key=lambda level: (self.passed[level] >= MAX_PASSED, -level))
        for level in waiting:
            self.passed[level] = self.passed[level] + 1 if level > chosen else self.passed[level]
        self.passed[chosen] = 0
        return chosen


class FairQueue:
    """The requests in flight and waiting at each model; used from one event loop, so it needs no lock."""

    def __init__(self, maximum: int) -> None:
        """`maximum`: number of requests that may wait for one model."""
        self._maximum = maximum
        self._models: dict[str, _ModelQueue] = {}

    def is_contended(self, uid: str) -> bool:
        """Whether requests wait for a place at the model."""
        queue = self._models.get(uid)
        return queue is not None and bool(queue.count)

    @property
    def is_unused(self) -> bool:
        """Whether no request is in flight or waits, at any model."""
        return not any(queue.in_flight or queue.count or queue.held for queue in self._models.values())

    def waiting(self, uid: str) -> int:
        """The number of requests that wait for a place at the model."""
        queue = self._models.get(uid)
        return 0 if queue is None else queue.count

    def enter(self, uid: str, client: str, places: int) -> bool:
        """Take one of the model's `places` if one is free and nobody waits for it; False: use `wait`."""
        # Every request comes here: `in` costs less than `get`.
        queue = self._models[uid] if uid in self._models else self._add(uid)
        queue.places = places
        if queue.count or queue.in_flight >= places:
            return False
        queue.in_flight += 1
        held = queue.held
        held[client] = held[client] + 1 if client in held else 1
        return True

    async def wait(self, uid: str, client: str, priority: int = NORMAL) -> None:
        """Take a place as soon as it is this client's turn.

        Raises:
            Refusal: 429, too many requests wait. The client with the most waiting requests of the lowest priority loses
                its newest.
        """
        queue = self._models[uid]
        if self.waiting(uid) >= self._maximum:
            self._make_room(queue, uid, client, priority)
        place = asyncio.get_running_loop().create_future()
        queue.levels[priority].setdefault(client, deque()).append(place)
        queue.count += 1
        self._give_places(queue)  # there may be more places than when the others began to wait
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(uid, client)
            else:
                self._remove(queue, client, priority, place)
            raise

    def leave(self, uid: str, client: str) -> None:
        """Give a place back."""
        queue = self._models[uid]
        queue.in_flight -= 1
        held = queue.held[client] - 1
        if held:
            queue.held[client] = held
        else:
            del queue.held[client]
        if queue.count:
            self._give_places(queue)

    def _add(self, uid: str) -> _ModelQueue:
        if len(self._models) >= MAX_UNUSED:
            self._models = {name: queue for name, queue in self._models.items() if queue.in_flight or queue.count}
        queue = self._models[uid] = _ModelQueue()
        return queue

    def _give_places(self, queue: _ModelQueue) -> None:
        held = queue.held
        while queue.count and queue.in_flight < queue.places:
            waiting = queue.levels[queue.next_level()]
            client = min(waiting, key=lambda each: held.get(each, 0))
            places = waiting.pop(client)
            place = places.popleft()
            queue.count -= 1
            if places:
                waiting[client] = places  # at the end: the others come first
            if not place.done():  # else its client has just left
                queue.in_flight += 1
                held[client] = held.get(client, 0) + 1
                place.set_result(None)

    def _make_room(self, queue: _ModelQueue, uid: str, client: str, priority: int) -> None:
        """End the newest wait of the client with the most waiting requests, which may be the one that asks.

        Requests of lower priorities are ended before; those of higher ones never.
        """
        level = max((each for each, clients in enumerate(queue.levels) if clients), default=priority)
        waiting = queue.levels[level]
        longest = max(waiting, key=lambda each: len(waiting[each]), default=client)
        is_fair = longest == client or len(waiting[longest]) <= len(waiting.get(client, ())) + 1
        if level < priority or (level == priority and is_fair):
            raise _too_many(uid, self._maximum)
        place = waiting[longest].pop()
        queue.count -= 1
        if not waiting[longest]:
            del waiting[longest]
        if not place.done():
            place.set_exception(_too_many(uid, self._maximum))

    def _remove(self, queue: _ModelQueue, client: str, priority: int, place: asyncio.Future[None]) -> None:
        waiting = queue.levels[priority]
        places = waiting.get(client)
        if places is not None and place in places:
            places.remove(place)
            queue.count -= 1
            if not places:
                del waiting[client]


def _too_many(uid: str, maximum: int) -> Refusal:
    return Refusal(
        Code.TOO_MANY_WAITING,
        f"{maximum} requests wait for a place at the model {uid!r} already.",
        retry_after=RETRY_AFTER_SECONDS,
    )
