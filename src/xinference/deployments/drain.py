"""Waits for the last answers of engines that get no new requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable

from xinference.routing.interfaces import ReplicaLoad

#: How often it is looked whether the last answer has been sent.
POLL_SECONDS = 0.02


async def drain(use: ReplicaLoad, replica_ids: Callable[[], Iterable[str]], seconds: float = math.inf) -> bool:
    """Wait until no answer is on its way from these replicas, at most `seconds`; whether that was reached.

    The routing table without them has been published before this is called.
    """
    until = time.monotonic() + seconds
    await use.settled()
    while any(use.at(replica_id) for replica_id in replica_ids()):  # the data path counts, and tells nobody
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
