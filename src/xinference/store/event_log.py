"""The events of deployments: stored for later readers, and sent to current followers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from xinference.errors import Problem, server_stopping
from xinference.store.database import Store

log = logging.getLogger(__name__)
#: The life of models: launched, loaded, unloaded, died and why, restarted.
models_log = logging.getLogger("xinference.models")
#: The log levels of events, by their types.
LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "FAILED": logging.ERROR}
#: The type of the last event of a follower whose server stops; it is not stored.
STOPPING = "SERVER_STOPPING"
FINAL = frozenset({"READY", "FAILED", "TERMINATED", STOPPING})
#: A follower with this many unread events loses progress events, but no others.
QUEUE_LIMIT = 1000


class EventLog:
    """Stores and sends events: one writer for each uid, any number of followers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers: dict[str, set[asyncio.Queue[dict[str, Any]]]] = defaultdict(set)
        self._transfers: dict[str, TransferProgress] = {}
        self._stopping = False
        self._subscribers: list[Callable[[str, dict[str, Any]], None]] = []

    def subscribe(self, subscriber: Callable[[str, dict[str, Any]], None]) -> None:
        """Call `subscriber` with the uid and the fields of each event that is stored; it must return at once."""
        self._subscribers.append(subscriber)

    def add(
        self,
        uid: str,
        event_type: str,
        stage: str,
        content: str,
        *,
        problem: Problem | None = None,
        model: dict[str, Any] | None = None,
    ) -> None:
        """Store an event and send it to the followers."""
        if event_type in ("READY", "TERMINATED"):
            self._transfers.pop(uid, None)
        event = self._store.add_event(uid, event_type, stage, content)
        if stage != "plan" or event_type != "INFO":  # the reasons of a plan are long, and follow from the request
            models_log.log(LEVELS.get(event_type, logging.INFO), "%s: %s", uid, content)
        event |= {"progress": None, "problem": problem.to_dict() if problem else None, "model": model}
        self._send(uid, event)
        for subscriber in self._subscribers:
            subscriber(uid, event)

    def progress(self, uid: str, stage: str, file: str, done: int, total: int | None) -> None:
        """Send the progress of a stage, in bytes, to the followers. Only the newest is retained, in memory."""
        self._transfers[uid] = TransferProgress(stage, file, done, total, time.time())
        if not self._followers.get(uid):
            return
        self._send(
            uid,
            {
                "event_id": None,
                "event_ts": time.time(),
                "event_type": "PROGRESS",
                "stage": stage,
                "event_content": file,
                "progress": {"file": file, "bytes_done": done, "bytes_total": total},
                "problem": None,
                "model": None,
            },
        )

    def transfer(self, uid: str) -> TransferProgress | None:
        """The newest progress of a launch or download that is not finished."""
        return self._transfers.get(uid)

    def clear(self, uid: str) -> None:
        """Delete the stored events of a uid, before it is reused."""
        self._transfers.pop(uid, None)
        self._store.remove_events(uid)

    def stored(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first."""
        return self._store.events(uid)

    def end_followers(self) -> None:
        """Give each follower, now and later, a last event: the server is stopping."""
        self._stopping = True
        for uid in self._followers:
            self._send(uid, _stopping_event())

    async def follow(self, uid: str, settled: dict[str, Any] | None) -> AsyncIterator[dict[str, Any]]:
        """The stored events, then all new ones, up to READY, FAILED or TERMINATED.

        `settled` is the final event of a deployment that has failed or is ready already. None: it is starting; then the
        events of earlier starts, such as under an earlier server, are left out.
        """
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._followers[uid].add(queue)
        try:
            stored = self._stored_or_none(uid)
            newest = stored[-1]["event_id"] if stored else 0
            for event in stored if settled is not None else _of_this_start(stored):
                if event["event_type"] not in FINAL:
                    yield event | {"progress": None, "problem": None, "model": None}
            if settled is None and self._stopping:
                settled = _stopping_event()
            if settled is not None:
                yield settled
                return
            while True:
                event = await queue.get()
                if event["event_id"] is None or event["event_id"] > newest:
                    yield event
                if event["event_type"] in FINAL:
                    return
        finally:
            self._followers[uid].discard(queue)
            if not self._followers[uid]:
                del self._followers[uid]

    def _stored_or_none(self, uid: str) -> list[dict[str, Any]]:
        """The stored events; none if they cannot be read: the new ones are still sent."""
        try:
            return self.stored(uid)
        except Problem as problem:
            log.error("the stored events of %s are left out: %s", uid, problem)
            return []

    def _send(self, uid: str, event: dict[str, Any]) -> None:
        for queue in self._followers.get(uid, ()):
            if event["event_type"] != "PROGRESS" or queue.qsize() < QUEUE_LIMIT:
                queue.put_nowait(event)


def _of_this_start(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events after the last final one."""
    ends = [number for number, event in enumerate(events, 1) if event["event_type"] in FINAL]
    return events[ends[-1] :] if ends else events


def _stopping_event() -> dict[str, Any]:
    problem = server_stopping()
    return final_event(STOPPING, problem.cause) | {"problem": problem.to_dict()}


def final_event(event_type: str, content: str) -> dict[str, Any]:
    """The final event of a deployment that ended before it was followed."""
    return {
        "event_id": None,
        "event_ts": time.time(),
        "event_type": event_type,
        "stage": event_type.lower(),
        "event_content": content,
        "progress": None,
        "problem": None,
        "model": None,
    }


@dataclass(frozen=True)
class TransferProgress:
    """The newest progress of a transfer; `total` None: unknown."""

    stage: str
    file: str
    done: int
    total: int | None
    at: float
    """Seconds since the epoch."""

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0
