"""Remembers the requests whose engines crashed, so that none of them is given to another engine.

A crash is an end that the server did not request, also that of an engine which the server killed because it hung or
took too much memory. The routing table names the crashed replicas. Before it does, a gateway takes an end for a crash
if the replica still stands in the table, which an ordered end leaves first, and if nothing listens at its address.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from xinference.routing.table import Route, Target

log = logging.getLogger(__name__)

#: Maximum number of requests that are remembered, and the seconds for which each is.
MAX_REQUESTS = 1024
REMEMBERED_SECONDS = 600.0
#: Crashed replicas that are remembered, to tell one crash that several requests report from several crashes.
MAX_REPLICAS = 256
#: Requests that are remembered because their clients left before the answer began, and the seconds for which each is.
MAX_LEFT, LEFT_SECONDS = 256, 600.0
#: Crashes after which a request is refused that was never alone at its engine; alone, one is enough.
SHARED_CRASHES = 2
CONNECT_SECONDS = 1.0
#: Time in which a connection to an engine that is ending is closed; a living engine waits longer for a request.
KEPT_SECONDS = 0.1

RequestKey = tuple[str, float, bytes]
"""The model, the time of its launch, and the hash of the path and the body."""


@dataclass(slots=True)
class _Suspect:
    """A request at whose engine a crash happened."""

    crashes: int
    until: float


@dataclass(frozen=True, slots=True)
class _Left:
    """A request whose client left before its answer began: the engine may have gone on with it."""

    replica_id: str
    key: RequestKey
    at: float


class CrashReports(Protocol):
    """Where a gateway reports crashes; the server, if several gateway processes share what they know."""

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        """Note that an engine crashed while it had this request, of `in_flight` in all."""
        ...

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        """Note that the client of this request left before its answer began."""
        ...


class CrashMemory:
    """The suspected requests, by a hash of model, path and body; used from one event loop, so it needs no lock."""

    def __init__(self, reports: CrashReports | None = None) -> None:
        """`reports`: where `add` and `leave` report; None: this memory judges by itself."""
        self.suspects: OrderedDict[RequestKey, _Suspect] = OrderedDict()
        """Empty on most servers: then a request need not be looked up."""
        self._replicas: OrderedDict[str, None] = OrderedDict()
        self._left: deque[_Left] = deque(maxlen=MAX_LEFT)
        self._reports: CrashReports = reports or self

    def add(self, route: Route, target: Target, path: str, body: bytes, in_flight: int) -> None:
        """Report that the engine crashed while it had this request.

        Args:
            in_flight: the requests that the engine had, with this one.
        """
        key = _key(route, path, body)
        log.warning("the engine of %s crashed with a request to %s of hash %s", route.uid, path, key[2].hex())
        self._reports.note_crash(target.replica_id, key, in_flight)

    def leave(self, route: Route, target: Target, path: str, body: bytes) -> None:
        """Report that the client left before the answer to this request began."""
        self._reports.note_left(target.replica_id, _key(route, path, body))

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        """See `CrashReports.note_crash`."""
        self.judge(replica_id, [(key, in_flight)])

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        """See `CrashReports.note_left`."""
        self._left.append(_Left(replica_id, key, time.monotonic()))

    def judge(self, replica_id: str, reports: Sequence[tuple[RequestKey, int]]) -> list[tuple[RequestKey, int]]:
        """Suspect the requests of a crash; returns each with its share of the crash.

        A request that was alone at the engine is the cause, and refused from now on. If there were others, or a client
        left before its answer, one of them may be the cause: each is refused only after it has been at a second crash.

        Args:
            reports: the requests that were reported, each with the number of requests in flight that was seen.
        """
        is_new = replica_id not in self._replicas
        self._replicas[replica_id] = None
        if len(self._replicas) > MAX_REPLICAS:
            self._replicas.popitem(last=False)
        keys = dict.fromkeys(key for key, _ in reports)
        since = time.monotonic() - LEFT_SECONDS
        left = {each.key for each in self._left if is_new and each.replica_id == replica_id and each.at > since}
        is_alone = is_new and len(reports) == 1 and reports[0][1] <= 1 and not left - keys.keys()
        shares = [(key, SHARED_CRASHES if is_alone else 1) for key in (*keys, *sorted(left - keys.keys()))]
        for key, crashes in shares:
            self.suspect(key, crashes)
        return shares

    @property
    def crashes(self) -> list[tuple[RequestKey, int]]:
        """All suspected requests, each with its crashes."""
        return [(key, suspect.crashes) for key, suspect in self.suspects.items()]

    def suspect(self, key: RequestKey, crashes: int) -> None:
        """Add crashes to those of a request."""
        suspect = self.suspects.pop(key, None) or _Suspect(0, 0.0)
        suspect.crashes += crashes
        suspect.until = time.monotonic() + REMEMBERED_SECONDS
        self.suspects[key] = suspect
        if len(self.suspects) > MAX_REQUESTS:
            self.suspects.popitem(last=False)

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


def _key(route: Route, path: str, body: bytes) -> RequestKey:
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
