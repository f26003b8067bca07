"""Waits for the last answers of replicas that get no new requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from xinference.routing.interfaces import ReplicaLoad

#: Interval at which the request counts are read.
POLL_SECONDS = 0.02


async def drain(load: ReplicaLoad, replica_ids: Callable[[], Iterable[str]], seconds: float = math.inf) -> bool:
    """Wait at most `seconds` until the replicas have sent their last answers; returns whether they have.

    The caller has published a routing table without these replicas before.
    """
    until = time.monotonic() + seconds
    await load.settled()
    while any(load.at(replica_id) for replica_id in replica_ids()):  # the data path counts without events
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
