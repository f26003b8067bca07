"""The queue before the places at a model's engines: clients get a place in turn, so that no client can hold a model.

A client is a key, or an address where no key is required. Of the clients that wait, the one with the fewest requests
in flight at the model is next; of equal ones, the one whose last turn is the longest ago.
"""

from __future__ import annotations

import asyncio
from collections import deque

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route

#: The number of requests that a replica is assumed to compute at the same time if its plan does not say.
UNKNOWN_SLOTS = 256
RETRY_AFTER_SECONDS = 5
#: The queues of models without a request are removed when there are this many queues.
MAX_UNUSED = 64


def places(route: Route) -> int:
    """The number of requests that are sent to the engines of a route at the same time.

    Some more than the engines compute: without them, an engine would wait for the gateway after each answer.
    """
    slots = route.slots or UNKNOWN_SLOTS
    return (slots + (slots // 4 or 1)) * len(route.targets)


class _ModelQueue:
    """The requests of one deployment."""

    __slots__ = ("held", "in_flight", "places", "waiting")

    def __init__(self) -> None:
        self.places = 1
        """The number of requests that may be in flight."""
        self.in_flight = 0
        self.held: dict[str, int] = {}
        """Requests in flight by client."""
        self.waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Requests that wait, by client; the client whose last turn is the longest ago comes first."""


class FairQueue:
    """The requests in flight and waiting at each model; used from one event loop, so it needs no lock."""

    def __init__(self, maximum: int) -> None:
        """`maximum`: number of requests that may wait for one model."""
        self._maximum = maximum
        self._models: dict[str, _ModelQueue] = {}

    def is_contended(self, uid: str) -> bool:
        """Whether requests wait for a place at the model."""
        queue = self._models.get(uid)
        return queue is not None and bool(queue.waiting)

    @property
    def is_unused(self) -> bool:
        """Whether no request is in flight or waits, at any model."""
        return not any(queue.in_flight or queue.waiting or queue.held for queue in self._models.values())

    def waiting(self, uid: str) -> int:
        """The number of requests that wait for a place at the model."""
        queue = self._models.get(uid)
        return 0 if queue is None else sum(map(len, queue.waiting.values()))

    def enter(self, uid: str, client: str, places: int) -> bool:
        """Take one of the model's `places` if one is free and nobody waits for it; False: use `wait`."""
        # Every request comes here: `in` costs less than `get`.
        queue = self._models[uid] if uid in self._models else self._add(uid)
        queue.places = places
        if queue.waiting or queue.in_flight >= places:
            return False
        queue.in_flight += 1
        held = queue.held
        held[client] = held[client] + 1 if client in held else 1
        return True

    async def wait(self, uid: str, client: str) -> None:
        """Take a place as soon as it is this client's turn.

        Raises:
            Refusal: 429, too many requests wait. The client with the most waiting requests loses its newest.
        """
        queue = self._models[uid]
        if self.waiting(uid) >= self._maximum:
            self._make_room(queue, uid, client)
        place = asyncio.get_running_loop().create_future()
        queue.waiting.setdefault(client, deque()).append(place)
        self._give_places(queue)  # there may be more places than when the others began to wait
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(uid, client)
            else:
                self._remove(queue, client, place)
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
        if queue.waiting:
            self._give_places(queue)

    def _add(self, uid: str) -> _ModelQueue:
        if len(self._models) >= MAX_UNUSED:
            self._models = {name: queue for name, queue in self._models.items() if queue.in_flight or queue.waiting}
        queue = self._models[uid] = _ModelQueue()
        return queue

    def _give_places(self, queue: _ModelQueue) -> None:
        held, waiting = queue.held, queue.waiting
        while waiting and queue.in_flight < queue.places:
            client = min(waiting, key=lambda each: held.get(each, 0))
            places = waiting.pop(client)
            place = places.popleft()
            if places:
                waiting[client] = places  # at the end: the others come first
            if not place.done():  # else its client has just left
                queue.in_flight += 1
                held[client] = held.get(client, 0) + 1
                place.set_result(None)

    def _make_room(self, queue: _ModelQueue, uid: str, client: str) -> None:
        """End the newest wait of the client with the most waiting requests, which may be the one that asks."""
        longest = max(queue.waiting, key=lambda each: len(queue.waiting[each]), default=client)
        if longest == client or len(queue.waiting[longest]) <= len(queue.waiting.get(client, ())) + 1:
            raise _too_many(uid, self._maximum)
        place = queue.waiting[longest].pop()
        if not queue.waiting[longest]:
            del queue.waiting[longest]
        if not place.done():
            place.set_exception(_too_many(uid, self._maximum))

    def _remove(self, queue: _ModelQueue, client: str, place: asyncio.Future[None]) -> None:
        places = queue.waiting.get(client)
        if places is not None and place in places:
            places.remove(place)
            if not places:
                del queue.waiting[client]


def _too_many(uid: str, maximum: int) -> Refusal:
    return Refusal(
        Code.TOO_MANY_WAITING,
        f"{maximum} requests wait for a place at the model {uid!r} already.",
        retry_after=RETRY_AFTER_SECONDS,
    )
