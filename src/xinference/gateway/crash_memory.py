"""Remembers the requests at whose engines a crash happened, so that no other engine gets them.

A gateway cannot observe why an engine has exited. It treats the exit as a crash if nothing listens at the replica's
address any more while the routing table still has the replica: a replica that is stopped is removed from the table
before its engine exits.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from xinference.routing.table import Route, Target

log = logging.getLogger(__name__)

#: Maximum number of remembered requests, and the time for which each of them is remembered.
MAX_REQUESTS = 1024
REMEMBERED_SECONDS = 600.0
#: Maximum number of remembered replicas that crashed: several requests may report the same crash.
MAX_REPLICAS = 256
#: Number of crashes after which a request is refused if its engine had other requests too. If the request was the only
#: one, it is refused after one crash.
SHARED_CRASHES = 2
CONNECT_SECONDS = 1.0
#: Time in which an exiting engine closes a new connection; a running engine waits longer for a request.
CLOSE_SECONDS = 0.1

Key = tuple[str, float, bytes]


@dataclass(slots=True)
class _Suspect:
    """A request at whose engine a crash happened."""

    crashes: int
    until: float


class CrashMemory:
    """The suspected requests, by a hash of model, path and body. Used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self.suspects: OrderedDict[Key, _Suspect] = OrderedDict()
        """Empty on most servers; then no request is looked up."""
        self._replicas: OrderedDict[str, None] = OrderedDict()

    def add(self, route: Route, target: Target, path: str, body: bytes, in_flight: int) -> None:
        """Record that the engine crashed while it had this request.

        Args:
            in_flight: the number of requests at the engine, including this one. If there were others, one of them may
                be the cause, so this request is refused only after a second crash.
        """
        is_alone = in_flight <= 1 and target.replica_id not in self._replicas
        self._replicas[target.replica_id] = None
        if len(self._replicas) > MAX_REPLICAS:
            self._replicas.popitem(last=False)
        key = _key(route, path, body)
        suspect = self.suspects.pop(key, None) or _Suspect(0, 0.0)
        suspect.crashes += SHARED_CRASHES if is_alone else 1
        suspect.until = time.monotonic() + REMEMBERED_SECONDS
        self.suspects[key] = suspect
        if len(self.suspects) > MAX_REQUESTS:
            self.suspects.popitem(last=False)
        log.warning("the engine of %s crashed with a request to %s of hash %s", route.uid, path, key[2].hex())

    def is_refused(self, route: Route, path: str, body: bytes) -> bool:
        """Whether this request has probably crashed an engine of this model."""
        key = _key(route, path, body)
        suspect = self.suspects.get(key)
        if suspect is None:
            return False
        if suspect.until < time.monotonic():
            del self.suspects[key]
            return False
        return suspect.crashes >= SHARED_CRASHES


def _key(route: Route, path: str, body: bytes) -> Key:
    """The hash of a request with its launch: a new launch of the model may serve the request without a crash."""
    digest = hashlib.blake2b(body, digest_size=16, person=hashlib.blake2b(path.encode(), digest_size=16).digest())
    return route.uid, route.created, digest.digest()


class _Closing(asyncio.Protocol):
    """Sets an event when the peer closes the connection."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def is_listening(target: Target) -> bool:
    """Whether the engine accepts connections and keeps them open; also true if there is no result in time.

    After the exit of an engine, its port may accept connections for a moment, and the kernel closes them.
    """
    url = urlsplit(target.base_url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            transport, connection = await loop.create_connection(_Closing, url.hostname or "", url.port or 80)
    except TimeoutError:
        return True
    except OSError:
        return False
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await connection.closed.wait()
    except TimeoutError:
        return True
    finally:
        transport.abort()
    return False
