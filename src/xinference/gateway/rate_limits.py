"""Limits: requests and tokens per minute of a key, and concurrent requests of a model or a key.

With several gateway processes, only the server counts: they send it a message about each request that has a limit.
Times are those of `time.monotonic`, which all processes of a machine share and which is never set back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from xinference.error_codes import Code
from xinference.keys.key import Key
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route

WINDOW_SECONDS = 60.0
#: How far below the limit the tokens have to be for the next request: at the limit itself, it is refused.
BELOW = 0.01
#: Minimum number of counts before expired ones are removed.
MIN_SWEEP = 256


@dataclass(frozen=True, slots=True)
class MinuteAmounts:
    """The amounts of the current minute and of the minute before it."""

    minute: int
    before: int
    now: int


class Meter(Protocol):
    """Counts by name."""

    def read(self, name: str, minute: int) -> MinuteAmounts:
        """The amounts of `name`."""
        ...

    def add(self, name: str, minute: int, amount: int) -> None:
        """Add `amount` to the current minute of `name`, down to 0."""
        ...


class LocalMeter:
    """The counts, in the memory of one process."""

    def __init__(self) -> None:
        self._spent: dict[str, MinuteAmounts] = {}
        self._sweep_at = MIN_SWEEP

    def read(self, name: str, minute: int) -> MinuteAmounts:
        spent = self._spent.get(name)
        if spent is None or spent.minute < minute - 1:
            return MinuteAmounts(minute, 0, 0)
        # Another process may have read the clock a moment before: the later minute stays the current one.
        return spent if spent.minute >= minute else MinuteAmounts(minute, spent.now, 0)

    def add(self, name: str, minute: int, amount: int) -> None:
        spent = self.read(name, minute)
        self._spent[name] = MinuteAmounts(spent.minute, spent.before, max(0, spent.now + amount))
        if len(self._spent) > self._sweep_at:
            self._spent = {n: s for n, s in self._spent.items() if s.minute >= minute - 1}
            self._sweep_at = max(MIN_SWEEP, 2 * len(self._spent))


def spent_in_window(spent: MinuteAmounts, now: float) -> float:
    """The amount of the 60 s before `now`, on the assumption that the minute before was spent evenly."""
    return spent.before * (1 - _share(now)) + spent.now


def wait_seconds(spent: MinuteAmounts, now: float, limit: float) -> float:
    """Seconds until the amount of the last 60 s is at most `limit`, if nothing is added."""
    share = _share(now)
    if spent.before * (1 - share) + spent.now <= limit:
        return 0.0
    if spent.now <= limit:
        return (1 - (limit - spent.now) / spent.before - share) * WINDOW_SECONDS
    return (1 - share + 1 - limit / spent.now) * WINDOW_SECONDS


class Limits:
    """Limits of keys: requests and tokens per minute."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter or LocalMeter()

    def take_request(self, key: Key, now: float) -> None:
        """Count a request.

        Raises:
            Refusal: 429, with the seconds until the next request is accepted; a refused request is not counted.
        """
        minute = _minute(now)
        if key.tokens_per_minute is not None:
            spent = self._meter.read(f"tokens {key.key_id}", minute)
            # Tokens are counted after the answer, so one request may overshoot the limit.
            if spent_in_window(spent, now) >= key.tokens_per_minute:
                wait = wait_seconds(spent, now, key.tokens_per_minute - BELOW)
                raise _too_many(key, f"{key.tokens_per_minute} tokens", wait)
        if key.requests_per_minute is not None:
            spent = self._meter.read(f"requests {key.key_id}", minute)
            before_this = key.requests_per_minute - 1
            if spent_in_window(spent, now) > before_this:
                raise _too_many(key, f"{key.requests_per_minute} requests", wait_seconds(spent, now, before_this))
            self._meter.add(f"requests {key.key_id}", minute, 1)

    def give_back_request(self, key: Key, now: float) -> None:
        """Do not count a request that `take_request` has counted at the time `now`."""
        if key.requests_per_minute is not None:
            self._meter.add(f"requests {key.key_id}", _minute(now), -1)

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of a prompt and its answer."""
        if tokens > 0:
            self._meter.add(f"tokens {key.key_id}", _minute(now), tokens)


class Permits:
    """Counts the concurrent requests of each deployment, over all its replicas and adapters, and of each key."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._held_by_keys: Counter[str] = Counter()

    @contextmanager
    def permit(self, route: Route) -> Iterator[None]:
        """A context with a permit of the route's deployment.

        Raises:
            Refusal: 429, all permits of the deployment are in use.
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

    def take(self, uid: str, maximum: int) -> None:
        """Take one of a deployment's `maximum` permits.

        Raises:
            Refusal: 429, all permits of the deployment are in use.
        """
        if self._held[uid] >= maximum:
            raise Refusal(
                Code.RATE_LIMIT_EXCEEDED,
                f"Rate limit reached for the model. Request limit {maximum} for the model: {uid}",
                retry_after=1,
            )
        self._held[uid] += 1

    def give_back(self, uid: str) -> None:
        """Return one permit of a deployment."""
        self._held[uid] -= 1
        if not self._held[uid]:
            del self._held[uid]

    @contextmanager
    def one_of_key(self, key: Key, maximum: int) -> Iterator[None]:
        """A context that holds one of a key's `maximum` permits.

        Raises:
            Refusal: 429, the key has no permit left.
        """
        self.take_of_key(key, maximum)
        try:
            yield
        finally:
            self.give_back_of_key(key)

    def take_of_key(self, key: Key, maximum: int) -> None:
        """Take one of a key's `maximum` permits.

        Raises:
            Refusal: 429, the key has no permit left.
        """
        if self._held_by_keys[key.key_id] >= maximum:
            raise Refusal(
                Code.RATE_LIMIT_EXCEEDED,
                f"Rate limit reached for the key {key.name}: {maximum} requests at the same time.",
                retry_after=1,
            )
        self._held_by_keys[key.key_id] += 1

    def give_back_of_key(self, key: Key) -> None:
        """Return one permit of a key."""
        self._held_by_keys[key.key_id] -= 1
        if not self._held_by_keys[key.key_id]:
            del self._held_by_keys[key.key_id]

    def held(self, uid: str) -> int:
        """The number of a deployment's permits that are in use."""
        return self._held.get(uid, 0)


class Quota(Protocol):
    """The limits of keys and models as the data path uses them; called only for keys and models that have limits."""

    async def take_request(self, key: Key, now: float) -> None:
        """Count a request of `key`. Raises a 429 `Refusal` above its limit."""
        ...

    def give_back_request(self, key: Key, now: float) -> None:
        """See `Limits.give_back_request`."""
        ...

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        """Count the tokens of a prompt and its answer."""
        ...

    def permit(self, route: Route) -> AbstractAsyncContextManager[None]:
        """A context with a permit of the route's deployment. Raises a 429 `Refusal` if all permits are in use."""
        ...

    def key_permit(self, key: Key, maximum: int) -> AbstractAsyncContextManager[None]:
        """See `Permits.one_of_key`."""
        ...


class LocalQuota:
    """The limits of a gateway of one process."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.permits = Permits()

    async def take_request(self, key: Key, now: float) -> None:
        self.limits.take_request(key, now)

    def give_back_request(self, key: Key, now: float) -> None:
        self.limits.give_back_request(key, now)

    def spend_tokens(self, key: Key, tokens: int, now: float) -> None:
        self.limits.spend_tokens(key, tokens, now)

    @asynccontextmanager
    async def permit(self, route: Route) -> AsyncIterator[None]:
        with self.permits.permit(route):
            yield

    @asynccontextmanager
    async def key_permit(self, key: Key, maximum: int) -> AsyncIterator[None]:
        with self.permits.one_of_key(key, maximum):
            yield


def _minute(now: float) -> int:
    return int(now // WINDOW_SECONDS)


def _share(now: float) -> float:
    """The elapsed share of the current minute, from 0 to 1."""
    return now % WINDOW_SECONDS / WINDOW_SECONDS


def _too_many(key: Key, limit: str, wait: float) -> Refusal:
    return Refusal(
        Code.RATE_LIMIT_EXCEEDED,
        f"Rate limit reached for the key {key.name}: {limit} per minute.",
        retry_after=max(1, math.ceil(wait)),
    )
