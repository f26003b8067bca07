"""How much a key may ask a minute, and how many requests a model takes at once.

Several gateway processes share the counts of the one that runs them: they ask it for each request that has a limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from xinference.keys.key import Key
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route

WINDOW_SECONDS = 60.0
#: Counts kept at least, before those that no longer matter are looked for.
MIN_SWEEP = 256


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent in this whole minute of the clock and in the one before it."""

    minute: int
    before: int
    now: int


class Meter(Protocol):
    """Counts by name."""

    def read(self, name: str, minute: int) -> Spent:
        """What `name` has spent."""
        ...

    def add(self, name: str, minute: int, amount: int) -> None:
        """Count `amount` more."""
        ...


class LocalMeter:
    """The counts of one process."""

    def __init__(self) -> None:
        self._spent: dict[str, Spent] = {}
        self._sweep_at = MIN_SWEEP

    def read(self, name: str, minute: int) -> Spent:
        """See `Meter.read`."""
        spent = self._spent.get(name)
        if spent is None or spent.minute < minute - 1:
            return Spent(minute, 0, 0)
        # A clock that was set back goes on in the minute it had reached.
        return spent if spent.minute >= minute else Spent(minute, spent.now, 0)

    def add(self, name: str, minute: int, amount: int) -> None:
        """See `Meter.add`."""
        spent = self.read(name, minute)
        self._spent[name] = Spent(spent.minute, spent.before, spent.now + amount)
        if len(self._spent) > self._sweep_at:
            self._spent = {n: s for n, s in self._spent.items() if s.minute >= minute - 1}
            self._sweep_at = max(MIN_SWEEP, 2 * len(self._spent))


def spent_in_window(spent: Spent, now: float) -> float:
    """What was spent in the 60 s before `now`, as if the minute before had been spent evenly."""
    return spent.before * (1 - _share(now)) + spent.now


def wait_seconds(spent: Spent, now: float, limit: float) -> float:
    """How long until at most `limit` was spent in the 60 s before, if nothing more is."""
    share = _share(now)
    if spent.before * (1 - share) + spent.now <= limit:
        return 0.0
    if spent.now <= limit:
        return (1 - (limit - spent.now) / spent.before - share) * WINDOW_SECONDS
    return (1 - share + 1 - limit / spent.now) * WINDOW_SECONDS


class Limits:
    """What keys may spend a minute."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter or LocalMeter()

    def take_request(self, key: Key, now: float) -> None:
        """Count a request.

        Raises:
            Refusal: 429, with the seconds after which the next one is let through; that one is not counted.
        """
        minute = _minute(now)
        if key.tokens_per_minute is not None:
            spent = self._meter.read(f"tokens {key.key_id}", minute)
            # The request that goes beyond the limit is let through: its tokens are known at its end.
            if spent_in_window(spent, now) >= key.tokens_per_minute:
                raise _too_many(key, f"{key.tokens_per_minute} tokens", wait_seconds(spent, now, key.tokens_per_minute))
        if key.requests_per_minute is not None:
            spent = self._meter.read(f"requests {key.key_id}", minute)
            before_this = key.requests_per_minute - 1
            if spent_in_window(spent, now) > before_this:
                raise _too_many(key, f"{key.requests_per_minute} requests", wait_seconds(spent, now, before_this))
            self._meter.add(f"requests {key.key_id}", minute, 1)

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of an answer, prompt included."""
        if tokens > 0:
            self._meter.add(f"tokens {key.key_id}", _minute(now), tokens)


class Permits:
    """How many requests each deployment is answering, all its replicas and adapters together."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    @contextmanager
    def one(self, route: Route) -> Iterator[None]:
        """Hold a permit of the route's deployment during the block; given back however it ends.

        Raises:
            Refusal: 429, there is none left.
        """
        if route.request_limits is None:
            yield
            return
        uid = route.parent or route.uid
        self.take(uid, route.request_limits)
        try:
            yield
        finally:
            self.give_back(uid)

    def take(self, uid: str, most: int) -> None:
        """Take one of a deployment's `most` permits.

        Raises:
            Refusal: 429, there is none left.
        """
        if self._held[uid] >= most:
            raise Refusal(
                "rate_limit_exceeded",
                429,
                f"Rate limit reached for the model. Request limit {most} for the model: {uid}",
                retry_after=1,
            )
        self._held[uid] += 1

    def give_back(self, uid: str) -> None:
        """Give one back."""
        self._held[uid] -= 1
        if not self._held[uid]:
            del self._held[uid]

    def held(self, uid: str) -> int:
        """Permits of a deployment that are held now."""
        return self._held.get(uid, 0)


class Quota(Protocol):
    """The limits of keys and models, seen from the data path; asked only for those that have any."""

    async def take_request(self, key: Key, now: float) -> None:
        """See `Limits.take_request`."""
        ...

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """See `Limits.spend_tokens`."""
        ...

    def permit(self, route: Route) -> AbstractAsyncContextManager[None]:
        """See `Permits.one`."""
        ...


class LocalQuota:
    """The limits of one process that is the whole gateway."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.permits = Permits()

    async def take_request(self, key: Key, now: float) -> None:
        """See `Quota.take_request`."""
        self.limits.take_request(key, now)

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """See `Quota.spend_tokens`."""
        self.limits.spend_tokens(key, tokens, now)

    @asynccontextmanager
    async def permit(self, route: Route) -> AsyncIterator[None]:
        """See `Quota.permit`."""
        with self.permits.one(route):
            yield


def _minute(now: float) -> int:
    return int(now // WINDOW_SECONDS)


def _share(now: float) -> float:
    """How much of this minute of the clock is over, from 0 to 1."""
    return now % WINDOW_SECONDS / WINDOW_SECONDS


def _too_many(key: Key, limit: str, wait: float) -> Refusal:
    return Refusal(
        "rate_limit_exceeded",
        429,
        f"Rate limit reached for the key {key.name}: {limit} a minute.",
        hint="Ask again later.",
        retry_after=max(1, math.ceil(wait)),
    )
