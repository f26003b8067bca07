"""The queue before the places at a model's engines: clients get a place in turn, so that no client can hold a model.

A client is a key, or an address where no key is required. Of the clients that wait, the one with the fewest requests
in flight at the model is next; of equal ones, the one whose last turn is the longest ago.

Requests of a higher priority come first. A lower level gets a place at the latest after `MAX_PASSED` others. After a
request with high priority, one slot of each replica remains free for the next one, for `RESERVED_SECONDS`. While its
prompt is computed, no other prompt begins, for at most `ALONE_SECONDS`: an engine computes all new prompts together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from xinference.error_codes import Code
from xinference.gateway.places import Places
from xinference.gateway.priority import HIGH, LOW, NORMAL
from xinference.protocol.errors import Refusal

RETRY_AFTER_SECONDS = 5
#: Time after a request with high priority during which places are reserved for others like it.
RESERVED_SECONDS = 300.0
#: Maximum time until the first token of a request with high priority during which no other request gets a place.
ALONE_SECONDS = 1.0
#: The queues of models without a request are removed when there are this many queues.
MAX_UNUSED = 64
#: The number of places that go to higher levels while a level waits; the next one is its own.
MAX_PASSED = 8

#: The turn of a request, which is done when it has its place.
Turn = asyncio.Future[None]
#: Requests that wait, by client; the client whose last turn is the longest ago comes first.
_Waiting = dict[str, deque[Turn]]


class _ModelQueue:
    """The requests of one deployment."""

    __slots__ = (
        "count",
        "held",
        "high",
        "in_flight",
        "levels",
        "passed",
        "places",
        "reserved_until",
        "silent",
        "timer",
    )

    def __init__(self) -> None:
        self.places = Places.equal(1)
        self.in_flight = 0
        self.high = 0
        """Those of them with high priority."""
        self.held: dict[str, int] = {}
        """Requests in flight by client."""
        self.levels: tuple[_Waiting, ...] = tuple({} for _ in range(LOW + 1))
        """Requests that wait, the highest priority first."""
        self.passed = [0] * (LOW + 1)
        """The places that have gone to higher levels since the last one of each level that waits."""
        self.count = 0
        """The number of requests that wait."""
        self.reserved_until = 0.0
        """The end of the reservation for high priority, by the monotonic clock; 0: nothing is reserved."""
        self.silent: dict[Turn, float] = {}
        """The requests with high priority without a first token, and until when no other one begins for each."""
        self.timer: asyncio.TimerHandle | None = None
        """Looks at the requests again that wait for one of these times."""

    def reserve(self) -> None:
        """Reserve places for high priority from now on."""
        self.reserved_until = time.monotonic() + RESERVED_SECONDS

    def is_reserving(self) -> bool:
        """Whether places are reserved for high priority."""
        if self.reserved_until and time.monotonic() >= self.reserved_until:
            self.reserved_until = 0.0
        return bool(self.reserved_until)

    def alone_until(self) -> float:
        """The time from which on requests of all levels may begin; 0: they may.

        Until then, a request with high priority has no first token yet, and its time for that has not passed.
        """
        until = max(self.silent.values(), default=0.0)
        return until if until and time.monotonic() < until else 0.0

    def held_until(self) -> float:
        """The time until which requests are held back, or places are reserved; 0: neither."""
        return self.alone_until() or (self.reserved_until if self.is_reserving() else 0.0)

    def next_level(self) -> int | None:
        """The level that gets the next place; None: no level that waits may have one."""
        waiting = self._waiting_levels()
        if not waiting:
            return None
        chosen = max(waiting, key=lambda level: (self.passed[level] >= MAX_PASSED, -level))
        return None if not self._has_place(chosen) or self._is_held_back(chosen) else chosen

    def note_passed(self, chosen: int) -> None:
        """Count a place of this level for those below it that wait; before `begin`."""
        for level in self._waiting_levels():
            self.passed[level] = self.passed[level] + 1 if level > chosen else self.passed[level]
        self.passed[chosen] = 0

    def forget_passed(self, level: int) -> None:
        """A level has lost a request that waited: if it has none any more, the next one has been passed by nobody."""
        if not self.levels[level]:
            self.passed[level] = 0

    def is_free_for(self, level: int) -> bool:
        """Whether a request of this level gets a place without a wait."""
        return (
            not any(self.levels[: level + 1])
            and self._has_place(level)
            and not self._is_reserved_from(level)
            and not self._is_held_back(level)
        )

    def begin(self, client: str, level: int, turn: Turn) -> None:
        """Count a request that has got a place."""
        self.in_flight += 1
        if level == HIGH:
            self.high += 1
            self.silent[turn] = time.monotonic() + ALONE_SECONDS
        self.held[client] = self.held.get(client, 0) + 1

    def end_silence(self, turn: Turn) -> None:
        """A request with high priority has its first token, or ends without one."""
        self.silent.pop(turn, None)

    def _waiting_levels(self) -> list[int]:
        """The levels that wait, and for which the next place is not reserved."""
        return [level for level, clients in enumerate(self.levels) if clients and not self._is_reserved_from(level)]

    def _has_place(self, level: int) -> bool:
        # A level that many have passed gets the place for which the next one of a higher level would wait.
        limit = self.places.of_level[HIGH if self.passed[level] >= MAX_PASSED else level]
        return self.in_flight < limit

    def _is_held_back(self, level: int) -> bool:
        """Whether a request of this level has to wait until one with high priority has its first token."""
        return level != HIGH and self.passed[level] < MAX_PASSED and bool(self.alone_until())

    def _is_reserved_from(self, level: int) -> bool:
        """Whether the next place is reserved for a higher level."""
        return level != HIGH and self.in_flight - self.high >= self.places.unreserved and self.is_reserving()


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

    @property
    def contended(self) -> list[str]:
        """The models for whose places requests wait."""
        return [uid for uid, queue in self._models.items() if queue.count]

    def set_places(self, uid: str, places: Places) -> None:
        """The places of a model have changed: requests that wait get those that have come."""
        queue = self._models[uid]
        queue.places = places
        self._give_places(queue)

    def enter(self, uid: str, client: str, places: Places, priority: int = NORMAL) -> bool:
        """Take one of the model's `places` if that needs no further look; False: use `wait`."""
        # Every request comes here: `in` costs less than `get`.
        queue = self._models[uid] if uid in self._models else self._add(uid)
        queue.places = places
        if queue.count or queue.in_flight >= places.of_level[NORMAL] or priority != NORMAL:
            return False
        if queue.reserved_until and queue.is_reserving():
            return False
        queue.in_flight += 1
        held = queue.held
        held[client] = held[client] + 1 if client in held else 1
        return True

    async def wait(self, uid: str, client: str, priority: int = NORMAL) -> Turn:
        """Take a place as soon as it is this client's turn, and return the turn.

        Raises:
            Refusal: 429, too many requests wait. The client with the most waiting requests of the lowest priority loses
                its newest.
        """
        queue = self._models[uid]
        if priority == HIGH:
            queue.reserve()
        if queue.count >= self._maximum and not queue.is_free_for(priority):
            self._make_room(queue, uid, client, priority)
        place = asyncio.get_running_loop().create_future()
        queue.levels[priority].setdefault(client, deque()).append(place)
        queue.count += 1
        self._give_places(queue)  # there may be more places than when the others began to wait
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(uid, client, priority, place)
            else:
                self._remove(queue, client, priority, place)
            raise
        return place

    def begin_answer(self, uid: str, turn: Turn) -> None:
        """A request with high priority has its first token: others may begin, unless another such one has none."""
        queue = self._models[uid]
        queue.end_silence(turn)
        self._give_places(queue)

    def leave(self, uid: str, client: str, priority: int = NORMAL, turn: Turn | None = None) -> None:
        """Give a place back; `turn` is what `wait` has returned, if it was called."""
        queue = self._models[uid]
        queue.in_flight -= 1
        if priority == HIGH:
            queue.high -= 1
        if turn is not None:
            queue.end_silence(turn)
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
        while queue.count and (level := queue.next_level()) is not None:
            waiting = queue.levels[level]
            client = min(waiting, key=lambda each: queue.held.get(each, 0))
            places = waiting.pop(client)
            place = places.popleft()
            queue.count -= 1
            if places:
                waiting[client] = places  # at the end: the others come first
            if place.done():  # its client has just left
                queue.forget_passed(level)
            else:
                queue.note_passed(level)
                queue.begin(client, level, place)
                place.set_result(None)
        if queue.count and (until := queue.held_until()):
            self._look_again(queue, until)

    def _look_again(self, queue: _ModelQueue, until: float) -> None:
        """Give places again at a time by the monotonic clock."""
        seconds = until - time.monotonic()
        loop = asyncio.get_running_loop()
        if queue.timer is not None:
            if queue.timer.when() <= loop.time() + seconds:
                return
            queue.timer.cancel()

        def look() -> None:
            queue.timer = None
            self._give_places(queue)

        queue.timer = loop.call_later(seconds, look)

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
            queue.forget_passed(level)
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
                queue.forget_passed(priority)


def _too_many(uid: str, maximum: int) -> Refusal:
    return Refusal(
        Code.TOO_MANY_WAITING,
        f"{maximum} requests wait for a place at the model {uid!r} already.",
        retry_after=RETRY_AFTER_SECONDS,
    )
