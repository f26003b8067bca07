"""The number of requests that are sent to the engines of a model at the same time, by priority."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from xinference.gateway.priority import LOW
from xinference.routing.table import Route

#: The number of requests that a replica is assumed to compute at the same time if its plan does not say.
UNKNOWN_SLOTS = 256
#: A replica with fewer slots reserves none: it would lose too large a part of them.
MIN_RESERVING_SLOTS = 4


@dataclass(frozen=True, slots=True)
class Places:
    """The maximum number of requests in flight at one model."""

    of_level: tuple[int, ...]
    """The maximum of all requests in flight with which another one of this priority is sent, the highest first."""
    unreserved: int
    """The maximum of requests below high priority while slots are reserved for high priority."""

    @classmethod
    def equal(cls, count: int) -> Places:
        """The same number for each priority."""
        return cls((count,) * (LOW + 1), count)


def places(route: Route) -> Places:
    """The places at the engines of a route."""
    return _places(route.slots or UNKNOWN_SLOTS, len(route.targets))


@lru_cache(maxsize=256)
def _places(slots: int, replicas: int) -> Places:
    """
    With normal priority, an engine gets some requests more than it computes: otherwise it would wait for the gateway
    after each answer. Those already wait for a slot when a request with high priority comes, so as many of these are
    sent in addition: they get their slot first. Requests with low priority never wait at the engine.
    """
    extra = slots // 4 or 1
    most = tuple((slots + count * extra) * replicas for count in (2, 1, 0))
    unreserved = slots - 1 if slots >= MIN_RESERVING_SLOTS else slots + extra
    return Places(most, unreserved * replicas)
