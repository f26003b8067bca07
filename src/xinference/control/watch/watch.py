"""One stream of changes for all followers of the server: a snapshot first, then each change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

from xinference.control.stop_notice import StopNotice
from xinference.control.watch.changes import Changes, frame, frames
from xinference.control.watch.rows import Row, Source, TopicState, encode
from xinference.control.watch.viewer import Viewer
from xinference.deployments.counts import Counts
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.records.record import LOCAL_NODE

log = logging.getLogger(__name__)

#: Maximum number of followers, of all keys and of one.
MAX_FOLLOWERS, MAX_OF_KEY = 128, 32
#: A stream without an event gets a comment after this time, so that no proxy closes it.
HEARTBEAT_SECONDS = 15.0
#: The time after which a browser connects again, in milliseconds.
_RETRY = b"retry: 2000\n\n"


class Topic:
    """Reads one source while somebody follows it, and adds what has changed."""

    def __init__(self, source: Source, changes: Changes) -> None:
        self.state = TopicState(source.is_list)
        self._source = source
        self._changes = changes
        self._reading = asyncio.Lock()
        self._followers = 0
        self._read_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Count a follower."""
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._read_periodically(), name=f"watch {self._source.topic}")

    def end(self) -> None:
        """Count one follower less; without one, nothing is read."""
        self._followers -= 1
        if not self._followers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def refresh(self) -> None:
        """Read the source unless it has just been read."""
        async with self._reading:
            if asyncio.get_running_loop().time() - self._read_at < self._source.seconds:
                return
            try:
                reading = await self._source.read()
            except Exception:  # a defect, or a machine that cannot be read now: the other topics go on
                log.exception("the topic %s could not be read", self._source.topic)
                return
            finally:
                self._read_at = asyncio.get_running_loop().time()
            for row in (*self.state.changes(reading.rows), *reading.notes):
                self._changes.add(self._source.topic, row.name, row.data, row.model, row.key_id)

    async def _read_periodically(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._source.seconds)


class Watch:
    """The followers of one server."""

    def __init__(
        self,
        sources: Sequence[Source],
        stop_notice: StopNotice,
        now: Callable[[], float] = time.time,
        counts: Counts | None = None,
    ) -> None:
        """`counts`: those of the server, for its metrics."""
        self.changes = Changes()
        self._counts = counts or Counts()
        self._topics = {source.topic: Topic(source, self.changes) for source in sources}
        self._stop_notice = stop_notice
        stop_notice.subscribe(self.changes.wake)
        self._now = now
        self._followers: Counter[str] = Counter()

    @property
    def followers(self) -> int:
        """Their number now."""
        return self._followers.total()

    def check_room(self, viewer: Viewer) -> None:
        """Check that there may be one more follower with this key.

        Raises:
            Problem: 429 ``too_many_followers``.
        """
        of_key = self._followers[_key_id(viewer)] if viewer.key is not None else 0
        if self.followers >= MAX_FOLLOWERS or of_key >= MAX_OF_KEY:
            number, whose = (MAX_OF_KEY, "for one key") if of_key >= MAX_OF_KEY else (MAX_FOLLOWERS, "for a server")
            raise Problem(
                Code.TOO_MANY_FOLLOWERS,
                f"{number} clients follow GET /v1/watch already, which is the maximum {whose}.",
                hint="Close a page or a program that follows the server, or read GET /v1/models/instances.",
            )

    async def follow(
        self, topics: Sequence[str], viewer: Callable[[], Viewer | None], last_id: str | None = None
    ) -> AsyncIterator[bytes]:
        """The stream of one follower: server-sent events.

        Args:
            viewer: the holder of its key as it is now; None: the key has ended.
            last_id: the id of the last event that it has got from an earlier stream.
        """
        holder = viewer()
        if holder is None:
            return
        with self._counted(topics, _key_id(holder)):
            yield _RETRY
            number = None if last_id is None else self.changes.number_of(last_id)
            await self._refresh(topics)
            if number is None or self.changes.after(number) is None:
                if last_id is not None:
                    yield self._resync("expired")
                number = self.changes.last
                yield self._snapshot(topics, holder)
            while (holder := viewer()) is not None and not self._stop_notice.given:
                found = self.changes.after(number)
                if found is None:
                    self._counts.lost_changes += 1
                    yield self._resync("slow")
                    await self._refresh(topics)
                    number = self.changes.last
                    yield self._snapshot(topics, holder)
                elif found:
                    number = found[-1].number
                    visible = [c for c in found if c.topic in topics and holder.sees(c.model, c.key_id)]
                    if visible:
                        yield frames(visible)
                elif not await self.changes.wait(number, HEARTBEAT_SECONDS):
                    yield b": the server has no news\n\n"
            reason = "stopping" if self._stop_notice.given else "key"
            yield frame(self.changes.id_of(number), "end", encode({"node": LOCAL_NODE, "reason": reason}))

    @contextlib.contextmanager
    def _counted(self, topics: Sequence[str], key_id: str) -> Iterator[None]:
        followed = [self._topics[topic] for topic in topics if topic in self._topics]
        self._followers[key_id] += 1
        self._counts.followers = self.followers
        for topic in followed:
            topic.begin()
        try:
            yield
        finally:
            for topic in followed:
                topic.end()
            self._followers[key_id] -= 1
            self._followers += Counter()  # without the keys that have no follower
            self._counts.followers = self.followers

    async def _refresh(self, topics: Sequence[str]) -> None:
        for topic in topics:
            if topic in self._topics:
                await self._topics[topic].refresh()

    def _snapshot(self, topics: Sequence[str], holder: Viewer) -> bytes:
        """The event with all rows that the holder sees. It is as of the newest change."""
        head = encode({"node": LOCAL_NODE, "time": self._now(), "topics": list(topics)})
        parts = [head[:-1]]
        for name in topics:
            if name in self._topics:
                state = self._topics[name].state
                rows: Iterable[Row] = (row for row in state.rows.values() if holder.sees(row.model, row.key_id))
                parts.append(b'"%b":%b' % (name.encode(), state.data(rows)))
        return frame(self.changes.id_of(self.changes.last), "snapshot", b",".join(parts) + b"}")

    def _resync(self, reason: str) -> bytes:
        return b"event: resync\ndata: " + encode({"node": LOCAL_NODE, "reason": reason}) + b"\n\n"


def _key_id(viewer: Viewer) -> str:
    return "" if viewer.key is None else viewer.key.key_id
