"""Records the requests of crashed engines, so that no other engine gets them.

A crash is an exit that the server did not request, or that of an engine which the server killed because it hung or used
too much memory. The routing table names the crashed replicas. Until it does, a gateway treats an exit as a crash if
nothing listens at the replica's address any more while the table still has the replica: a replica that is stopped is
removed from the table before its engine exits.
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

#: Maximum number of remembered requests, and the time for which each of them is remembered.
MAX_REQUESTS = 1024
REMEMBERED_SECONDS = 600.0
#: Maximum number of remembered replicas that crashed: several requests may report the same crash.
MAX_REPLICAS = 256
#: Maximum number of requests that are remembered because their clients disconnected before the answer; and the time.
MAX_LEFT, LEFT_SECONDS = 256, 600.0
#: Number of crashes after which a request is refused if its engine had other requests too. If the request was the only
#: one, it is refused after one crash.
SHARED_CRASHES = 2
CONNECT_SECONDS = 1.0
#: Time in which an exiting engine closes a new connection; a running engine waits longer for a request.
CLOSE_SECONDS = 0.1

RequestKey = tuple[str, float, bytes]
"""The model, the time of its launch, and the hash of the path and the body."""


@dataclass(slots=True)
class _Suspect:
    """A request at whose engine a crash happened."""

    crashes: int
    until: float


@dataclass(frozen=True, slots=True)
class _Left:
    """A request whose client disconnected before its answer began: the engine may have continued with it."""

    replica_id: str
    key: RequestKey
    at: float


class CrashReports(Protocol):
    """The receiver of a gateway's reports of crashes; the server, if there are several gateway processes."""

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        """Report that an engine crashed while it had this request, one of `in_flight` requests."""
        ...

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        """Report that the client of this request disconnected before its answer began."""
        ...


class CrashMemory:
    """The suspected requests, by a hash of model, path and body. Used from one event loop, so it needs no lock."""

    def __init__(self, reports: CrashReports | None = None) -> None:
        """`reports`: the receiver of the reports of `add` and `leave`; None: this object."""
        self.suspects: OrderedDict[RequestKey, _Suspect] = OrderedDict()
        """Empty on most servers; then no request is looked up."""
        self._replicas: OrderedDict[str, None] = OrderedDict()
        self._left: deque[_Left] = deque(maxlen=MAX_LEFT)
        self._reports: CrashReports = reports or self

    def add(self, route: Route, target: Target, path: str, body: bytes, in_flight: int) -> None:
        """Report that the engine crashed while it had this request.

        Args:
            in_flight: the number of requests at the engine, including this one.
        """
        key = _key(route, path, body)
        log.warning("the engine of %s crashed with a request to %s of hash %s", route.uid, path, key[2].hex())
        self._reports.note_crash(target.replica_id, key, in_flight)

    def leave(self, route: Route, target: Target, path: str, body: bytes) -> None:
        """Report that the client disconnected before the answer to this request began."""
        self._reports.note_left(target.replica_id, _key(route, path, body))

    def note_crash(self, replica_id: str, key: RequestKey, in_flight: int) -> None:
        self.judge(replica_id, [(key, in_flight)])

    def note_left(self, replica_id: str, key: RequestKey) -> None:
        self._left.append(_Left(replica_id, key, time.monotonic()))

    def judge(self, replica_id: str, reports: Sequence[tuple[RequestKey, int]]) -> list[tuple[RequestKey, int]]:
        """Suspect the requests of a crash; returns each with its share of the crash.

        The only request at an engine is the cause, and is refused from now on. If there were others, or a client
        disconnected before its answer, one of them may be the cause: each is refused only after a second crash.

        Args:
            reports: the reported requests, each with the number of requests in flight at that time.
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
        """Whether this request has probably crashed an engine of this model."""
        key = _key(route, path, body)
        suspect = self.suspects.get(key)
        if suspect is None:
            return False
        if suspect.until < time.monotonic():
            del self.suspects[key]
            return False
        return suspect.crashes >= SHARED_CRASHES


def _key(route: Route, path: str, body: bytes) -> RequestKey:
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
