"""The records of a server: the last ones, the totals of all, and the functions that are called with each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from xinference.records.record import Record
from xinference.records.totals import Totals

#: Number of records in memory.
RECORDS_KEPT = 5000

Subscriber = Callable[[Record], None]


class RecordHub:
    """Receives each record once, from every gateway process; used from one event loop, so it needs no lock."""

    def __init__(self, totals: Totals | None = None, kept: int = RECORDS_KEPT) -> None:
        self.totals = totals or Totals()
        self._last: deque[Record] = deque(maxlen=kept)
        self._subscribers: tuple[Subscriber, ...] = ()
        # Bound once: `publish` is called for each request.
        self._keep, self._add = self._last.append, self.totals.add

    def publish(self, record: Record) -> None:
        """Take a record of a request that has ended."""
        self._keep(record)
        self._add(record)
        for subscriber in self._subscribers:
            subscriber(record)

    def publish_all(self, records: Iterable[Record]) -> None:
        """Take the records of another process."""
        for record in records:
            self.publish(record)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each later record; it must return at once. The returned function ends that."""
        self._subscribers += (subscriber,)

        def end() -> None:
            self._subscribers = tuple(other for other in self._subscribers if other is not subscriber)

        return end

    def since(self, request_id: str | None, limit: int) -> tuple[list[Record], int]:
        """The records after the one of this id, oldest first: the last `limit`, and the number of the others.

        Of None or an id that is not known, all records are later.
        """
        found: list[Record] = []
        omitted = 0
        for record in reversed(self._last):
            if record.request_id == request_id:
                break
            if len(found) < limit:
                found.append(record)
            else:
                omitted += 1
        return found[::-1], omitted

    def newest(self) -> Iterator[Record]:
        """The records in memory, those that ended last first."""
        return iter(tuple(reversed(self._last)))
