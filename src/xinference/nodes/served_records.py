"""The records of clients' requests to a worker, which it stores until the supervisor has counted them."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from xinference.nodes import messages
from xinference.nodes.membership import CLOCK_SECONDS
from xinference.records.record import Record

log = logging.getLogger(__name__)
#: Maximum number of records in one message: about 300 kB.
BATCH = 1000
#: Maximum number of records that wait for the supervisor; with more, the oldest are dropped.
MAX_WAITING = 50_000
#: Maximum number of messages that are sent at once.
MAX_BATCHES = 10
#: Maximum age of a record, in seconds; maximum number of tokens or bytes of a request; maximum characters of a text.
MAX_AGE_SECONDS, MAX_COUNT, MAX_TEXT = 30 * 86400.0, 1 << 48, 1024
#: Maximum number of different models, keys, paths, statuses and replicas in the records of one node in an hour.
MAX_SUBJECTS = 10_000


class ServedRecords:
    """The records of one worker's process.

    Args:
        send: sends an event to the supervisor; it may be lost.
        process: differs for each process, since its numbers begin at 1.
    """

    def __init__(self, send: Callable[[messages.Served], None], process: str = "") -> None:
        self._send = send
        self._process = process or secrets.token_hex(4)
        self._waiting: deque[Record] = deque()
        self._number = 0
        """The number of records that were added or dropped before the first one that waits."""
        self._dropped = 0

    def add(self, record: Record) -> None:
        """Keep a record until it is counted."""
        self._waiting.append(record)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self._number += 1
            if not self._dropped:
                log.warning("the supervisor is away: of the requests here, only the last %d are counted", MAX_WAITING)
            self._dropped += 1

    def send(self) -> None:
        """Send what waits, also what was sent before and is not counted yet; called while the link is up."""
        for number, batch in self._batches():
            self._send(messages.Served(self._process, number, batch))

    def counted(self, process: str, number: int) -> None:
        """Forget the records up to the one with this number: the supervisor has counted them."""
        if process != self._process:
            return
        while self._waiting and self._number < number:
            self._waiting.popleft()
            self._number += 1
        self._dropped = 0

    def _batches(self) -> Iterator[tuple[int, tuple[Record, ...]]]:
        """The first records that wait, each batch with the number of its last one."""
        records = tuple(islice(self._waiting, BATCH * MAX_BATCHES))
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            yield self._number + start + len(batch), batch


class CountedRecords:
    """The supervisor's side of one node: counts each record once."""

    def __init__(self) -> None:
        self._process, self._number = "", 0
        self._subjects: set[tuple[object, ...]] = set()
        """Those of the records of this hour."""
        self._hour = 0.0

    def take(self, served: messages.Served, now: float) -> tuple[Record, ...]:
        """The records of a message that were not counted before, without those that no request can have.

        `now`: seconds since the epoch.
        """
        if served.process != self._process:
            self._process, self._number = served.process, 0
        records = served.records
        new = min(len(records), max(0, served.number - self._number))
        self._number = max(self._number, served.number)
        taken = records[len(records) - new :]
        possible = tuple(each for each in taken if _is_possible(each, now) and self._has_place(each, now))
        if len(possible) < len(taken):
            refused = len(taken) - len(possible)
            log.warning(
                "%d records of requests are not counted: figures that no request has, or too many models", refused
            )
        return possible

    def _has_place(self, record: Record, now: float) -> bool:
        """Whether the totals have a place for a record: each model, key, path, status and replica takes memory."""
        if now // 3600 != self._hour:
            self._hour, self._subjects = now // 3600, set()
        subject = (record.model, record.key_id, record.path, record.status, record.stream, record.replica)
        if len(self._subjects) < MAX_SUBJECTS:
            self._subjects.add(subject)
        return subject in self._subjects


def _is_possible(record: Record, now: float) -> bool:
    """Whether a record can be of a request: totals and metrics are added up from what a node says."""
    seconds = (record.total, record.first_token or 0.0, record.wait_load, record.wait_recovery, record.wait_permit)
    counts = (record.prompt_tokens, record.cached_tokens, record.output_tokens, record.bytes_in, record.bytes_out)
    texts = (record.request_id, record.key_id, record.model, record.replica, record.path, record.code, record.trace)
    return (
        now - MAX_AGE_SECONDS <= record.started <= now + CLOCK_SECONDS
        and all(0 <= each <= MAX_AGE_SECONDS for each in (*seconds, record.wait_quota))
        and all(0 <= (each or 0) <= MAX_COUNT for each in counts)
        and all(len(each) <= MAX_TEXT for each in texts)
        and 100 <= record.status < 600
    )
