"""Remembers the requests whose engines crashed, so that none of them is given to another engine.

A gateway cannot see why an engine has ended. It takes the end for a crash that a request may have caused if the replica
still stands in the routing table, which an ordered end leaves first, and if nothing listens at its address any more.
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

#: Maximum number of requests that are remembered, and the seconds for which each is.
MAX_REQUESTS = 1024
REMEMBERED_SECONDS = 600.0
#: Crashed replicas that are remembered, to tell one crash that several requests report from several crashes.
MAX_REPLICAS = 256
#: Crashes after which a request is refused that was never alone at its engine; alone, one is enough.
SHARED_CRASHES = 2
CONNECT_SECONDS = 1.0
#: Time in which a connection to an engine that is ending is closed; a living engine waits longer for a request.
KEPT_SECONDS = 0.1

Key = tuple[str, float, bytes]


@dataclass(slots=True)
class _Suspect:
    """A request at whose engine a crash happened."""

    crashes: int
    until: float


class CrashMemory:
    """The suspected requests, by a hash of model, path and body; used from one event loop, so it needs no lock."""

    def __init__(self) -> None:
        self.suspects: OrderedDict[Key, _Suspect] = OrderedDict()
        """Empty on most servers: then a request need not be looked up."""
        self._replicas: OrderedDict[str, None] = OrderedDict()

    def add(self, route: Route, target: Target, path: str, body: bytes, in_flight: int) -> None:
        """Note that the engine crashed while it had this request.

        Args:
            in_flight: the requests that the engine had, with this one. If there were others, one of them may be the
                cause, and this one is refused only after it has been at a second crash.
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
        """Whether this request has crashed an engine of this model, as far as is known."""
        key = _key(route, path, body)
        suspect = self.suspects.get(key)
        if suspect is None:
            return False
        if suspect.until < time.monotonic():
            del self.suspects[key]
            return False
        return suspect.crashes >= SHARED_CRASHES


def _key(route: Route, path: str, body: bytes) -> Key:
    """A model that is launched again has another time of launch, and may do what it did not do before."""
    digest = hashlib.blake2b(body, digest_size=16, person=hashlib.blake2b(path.encode(), digest_size=16).digest())
    return route.uid, route.created, digest.digest()


class _Closing(asyncio.Protocol):
    """Tells when its connection is closed from the other side."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def is_listening(target: Target) -> bool:
    """Whether the engine takes connections, and keeps them: the kernel may close those of a dead one before its port.

    An engine that does not answer in time may be alive.
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
        async with asyncio.timeout(KEPT_SECONDS):
            await connection.closed.wait()
    except TimeoutError:
        return True
    finally:
        transport.abort()
    return False
