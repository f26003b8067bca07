"""The history of launches: a table of limited size with the key, the request, the times and the end of each launch."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

from xinference.errors import Problem
from xinference.store.database import Store, stored_problem
from xinference.store.row_types import stored_time

log = logging.getLogger(__name__)
#: Number of launches that are stored.
LAUNCHES_KEPT = 200
#: A launch with a higher number is damaged. SQLite itself adds no row after the highest possible number.
MAX_LAUNCH_ID = 1 << 60


@dataclass(frozen=True)
class LaunchRow:
    """One launch; `request` is the JSON text, validated by its reader. Times are seconds since the epoch."""

    launch_id: int
    uid: str
    request: str
    created: float
    ready: float | None
    """None: the model has not been ready."""
    ended: float | None
    """None: the deployment has not ended."""
    problem: Problem | None
    """The reason of its failure."""


_COLUMNS = "launch_id, uid, request, created, ready, ended, problem"


class LaunchHistory:
    """Records launches as notes: the history is information only, so no launch waits for it or fails because of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begun(self, uid: str, request: str, created: float) -> None:
        """Record a launch; the oldest ones beyond `LAUNCHES_KEPT` are deleted."""
        self._store.note(
            "INSERT INTO launches(launch_id, uid, request, created) "
            "SELECT coalesce(max(launch_id), 0) + 1, ?, ?, ? FROM launches WHERE launch_id < ?",
            *(uid, request, created, MAX_LAUNCH_ID),
        )
        self._store.note(
            "DELETE FROM launches WHERE launch_id <= "
            "(SELECT launch_id FROM launches ORDER BY launch_id DESC LIMIT 1 OFFSET ?)",
            LAUNCHES_KEPT,
        )

    def ready(self, uid: str) -> None:
        """Record that the newest launch of a uid is ready."""
        self._store.note(
            "UPDATE launches SET ready = ? WHERE uid = ? AND ready IS NULL AND ended IS NULL", time.time(), uid
        )

    def ended(self, uid: str, problem: Problem | None = None) -> None:
        """Record that the newest launch of a uid has ended, or has failed with `problem`."""
        text = None if problem is None else json.dumps(problem.to_dict())
        self._store.note(
            "UPDATE launches SET ended = ?, problem = ? WHERE uid = ? AND ended IS NULL", time.time(), text, uid
        )

    def all(self) -> list[LaunchRow]:
        """The stored launches, newest first.

        Raises:
            Problem: the rows cannot be read.
        """
        self._store.write_notes()
        rows = self._store.rows("launches", _COLUMNS, f"ORDER BY launch_id DESC LIMIT {LAUNCHES_KEPT}")
        return [_launch(row) for row in rows]

    def failure(self, uid: str) -> LaunchRow | None:
        """The newest launch of a uid, if it has failed; else None, also if the rows cannot be read."""
        self._store.write_notes()
        try:
            rows = self._store.rows("launches", _COLUMNS, "WHERE uid = ? ORDER BY launch_id DESC LIMIT 1", (uid,))
        except Problem as problem:
            log.error("the launch history of %s is left out: %s", uid, problem)
            return None
        launch = _launch(rows[0]) if rows else None
        return launch if launch is not None and launch.problem is not None else None


def _launch(row: tuple[Any, ...]) -> LaunchRow:
    launch_id, uid, request, created, ready, ended, problem = row
    ready_time, end_time = (None if at is None else stored_time(at) for at in (ready, ended))
    return LaunchRow(launch_id, uid, request, stored_time(created), ready_time, end_time, stored_problem(problem))
