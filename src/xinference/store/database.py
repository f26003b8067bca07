"""The state that survives a crash: deployments, their replicas and events, in one SQLite file in WAL mode.

A row is desired state: the row of a deployment is written before its engines start, and deleted after they have exited.
A change that a later server needs is a transaction, which raises if it cannot be written; events, measurements and
deletions are notes, which wait until the file can be written. Calls are short and synchronous.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hosts import LOCAL_NODE
from xinference.store.connection import Connection
from xinference.store.row_types import stored_time

log = logging.getLogger(__name__)

MAX_EVENTS = 100
#: Number of measurements that are stored for each version and engine.
MEASUREMENTS_KEPT = 20
#: An event with a higher number than this is damaged: SQLite has no higher number for the next event.
MAX_EVENT_ID = 1 << 60
#: A measurement of more bytes than this is damaged.
MAX_BYTES = 1 << 50
#: A measurement of more tokens or slots than this is damaged.
MAX_COUNT = 1 << 31

_MEASURED = "version_id, engine, context_length, slots, measured_bytes, estimated_bytes, gpu_bytes"


@dataclass(frozen=True)
class DeploymentRow:
    """One stored deployment; `request` is the JSON text, validated by its reader."""

    uid: str
    request: str
    wanted: bool
    problem: Problem | None
    created: float
    ran: bool = False
    """The deployment has been ready once, or its on-demand model could be loaded."""
    unloaded: bool = False
    """A user has unloaded the model; it stays unloaded until it is loaded again."""


@dataclass(frozen=True)
class ReplicaRow:
    """One replica that was started and whose exit is not known."""

    replica_id: str
    uid: str
    position: int
    node_id: str = LOCAL_NODE
    """The node on which it was started."""
    further_nodes: tuple[str, ...] = ()
    """The nodes of its further ranks, if several nodes compute it."""


@dataclass(frozen=True)
class Measurement:
    """The memory that a version used when it was ready, in bytes."""

    version_id: str
    engine: str
    context_length: int
    slots: int
    measured_bytes: int
    """Host memory of one replica."""
    estimated_bytes: int
    """The plan's estimate before any correction."""
    gpu_bytes: int | None = None
    """Memory of one replica on all its GPUs; None: not measured."""


class Store(Connection):
    """Reads and writes the rows of one home."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            Problem: any problem of `Connection`.
        """
        super().__init__(path)
        numbers = self.read(
            "SELECT max(event_id) FROM events WHERE event_id < ? "
            "UNION SELECT seq FROM sqlite_sequence WHERE name = 'events'",
            (MAX_EVENT_ID,),
        )
        known = [number for (number,) in numbers if isinstance(number, int) and 0 <= number < MAX_EVENT_ID]
        self._next_event = 1 + max(known, default=0)

    # -- deployments ------------------------------------------------------------------------------------------

    def add_deployment(self, uid: str, request: str, created: float | None = None) -> None:
        """Add the row of a launch, in place of an earlier one of this uid; `created` is in seconds since the epoch.

        Raises:
            Problem: the row cannot be written.
        """
        with self.write() as db:
            db.execute("DELETE FROM events WHERE uid = ?", (uid,))
            db.execute(
                "INSERT OR REPLACE INTO deployments(uid, request, created, ran) VALUES (?, ?, ?, 0)",
                (uid, request, time.time() if created is None else created),
            )

    def note_restart(self, uid: str, request: str) -> None:
        """Store as a note that a deployment, which may be unloaded or failed, is started again with this request."""
        self.note("UPDATE deployments SET request = ?, problem = NULL, unloaded = 0 WHERE uid = ?", request, uid)

    def set_unloaded(self, uid: str) -> None:
        """Store that a deployment stays unloaded, also under later servers.

        Raises:
            Problem: the row cannot be written.
        """
        with self.write() as db:
            db.execute("UPDATE deployments SET unloaded = 1 WHERE uid = ?", (uid,))

    def note_ran(self, uid: str) -> None:
        """Store as a note that a deployment has been ready."""
        self.note("UPDATE deployments SET ran = 1 WHERE uid = ?", uid)

    def set_unwanted(self, uid: str) -> None:
        """Mark a deployment for termination: after a crash it is still terminated."""
        self.note("UPDATE deployments SET wanted = 0 WHERE uid = ?", uid)

    def set_wanted(self, uid: str, wanted: bool) -> None:
        """Store whether the next server restores a deployment.

        Raises:
            Problem: the row cannot be written.
        """
        with self.write() as db:
            db.execute("UPDATE deployments SET wanted = ? WHERE uid = ?", (int(wanted), uid))

    def set_request(self, uid: str, request: str) -> None:
        """Store a change of the request, such as the number of replicas.

        Raises:
            Problem: the row cannot be written.
        """
        with self.write() as db:
            db.execute("UPDATE deployments SET request = ? WHERE uid = ?", (request, uid))

    def note_request(self, uid: str, request: str) -> None:
        """Store a change of the request as a note: the change is already in effect and cannot be refused."""
        self.note("UPDATE deployments SET request = ? WHERE uid = ?", request, uid)

    def set_problem(self, uid: str, problem: Problem | None) -> None:
        text = None if problem is None else json.dumps(problem.to_dict())
        self.note("UPDATE deployments SET problem = ? WHERE uid = ?", text, uid)

    def remove_deployment(self, uid: str) -> None:
        """Remove the row of a deployment, with its replicas and events."""
        self.note("DELETE FROM deployments WHERE uid = ?", uid)
        self.remove_events(uid)

    def deployments(self) -> list[DeploymentRow]:
        """All deployments, oldest first.

        Raises:
            Problem: the rows cannot be read.
        """
        columns = "uid, request, wanted, problem, created, ran, unloaded"
        rows = self.rows("deployments", columns, "ORDER BY created, rowid")
        return [
            DeploymentRow(r[0], r[1], bool(r[2]), stored_problem(r[3]), stored_time(r[4]), bool(r[5]), bool(r[6]))
            for r in rows
        ]

    # -- replicas ---------------------------------------------------------------------------------------------

    def add_replica(self, replica_id: str, uid: str, position: int, nodes: tuple[str, ...] = (LOCAL_NODE,)) -> None:
        """Add the row of a replica before its start, so that a later server can adopt it on its nodes.

        Raises:
            Problem: the row cannot be written.
        """
        node_id, *further = nodes
        stored = None if node_id == LOCAL_NODE else node_id
        with self.write() as db:
            db.execute(
                "INSERT INTO replicas(replica_id, uid, position, started, node_id, further_nodes) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (replica_id, uid, position, time.time(), stored, ",".join(further) or None),
            )

    def remove_replica(self, replica_id: str) -> None:
        self.note("DELETE FROM replicas WHERE replica_id = ?", replica_id)

    def replicas(self, uid: str) -> list[ReplicaRow]:
        """The replicas of a deployment.

        Raises:
            Problem: the rows cannot be read.
        """
        columns = "replica_id, uid, position, node_id, further_nodes"
        rows = self.rows("replicas", columns, "WHERE uid = ? ORDER BY position", (uid,))
        return [
            ReplicaRow(r[0], r[1], r[2], LOCAL_NODE if r[3] is None else r[3], tuple(r[4].split(",")) if r[4] else ())
            for r in rows
        ]

    def replica_ids(self) -> frozenset[str]:
        """The ids of all replicas.

        Raises:
            Problem: the rows cannot be read.
        """
        return frozenset(replica_id for (replica_id,) in self.rows("replicas", "replica_id"))

    # -- events -----------------------------------------------------------------------------------------------

    def add_event(self, uid: str, event_type: str, stage: str, content: str) -> dict[str, Any]:
        """Store an event, assign its number, and delete all but the newest `MAX_EVENTS` events of the deployment."""
        row = (self._next_event, time.time(), event_type, stage, content)
        self._next_event += 1
        self.note(
            "INSERT INTO events(event_id, event_ts, event_type, stage, event_content, uid) VALUES (?, ?, ?, ?, ?, ?)",
            *(*row, uid),
            subject=uid,
            row=row,
        )
        self.note(
            "DELETE FROM events WHERE uid = ? AND event_id <= "
            "(SELECT event_id FROM events WHERE uid = ? ORDER BY event_id DESC LIMIT 1 OFFSET ?)",
            *(uid, uid, MAX_EVENTS),
        )
        return _event(row)

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first, with those that wait to be written.

        Raises:
            Problem: the rows cannot be read.
        """
        columns = "event_id, event_ts, event_type, stage, event_content"
        rows = self.rows("events", columns, "WHERE uid = ? ORDER BY event_id", (uid,))
        for note in self.waiting:
            if note.subject == uid:
                rows = [*rows, note.row] if note.row else []
        return [_event(row) for row in rows[-MAX_EVENTS:]]

    def remove_events(self, uid: str) -> None:
        self.note("DELETE FROM events WHERE uid = ?", uid, subject=uid)

    def remove_other_events(self, uids: Iterable[str]) -> None:
        """Remove the events of all uids but these: of downloads, and of rows that were damaged."""
        uids = tuple(uids)
        self.note(f"DELETE FROM events WHERE uid NOT IN ({','.join('?' * len(uids))})", *uids)  # noqa: S608 -- it adds only question marks

    # -- measurements -----------------------------------------------------------------------------------------

    def add_measurement(self, measurement: Measurement) -> None:
        """Store a measurement; it replaces an earlier one with the same engine, context and slots."""
        m = measurement
        self.note(
            f"INSERT OR REPLACE INTO measurements({_MEASURED}, measured_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 -- the columns are constants
            *(m.version_id, m.engine, m.context_length, m.slots),
            *(m.measured_bytes, m.estimated_bytes, m.gpu_bytes, time.time()),
        )
        self.note(
            "DELETE FROM measurements WHERE version_id = ? AND engine = ? AND rowid NOT IN (SELECT rowid FROM "
            "measurements WHERE version_id = ? AND engine = ? ORDER BY measured_at DESC, rowid DESC LIMIT ?)",
            *(m.version_id, m.engine, m.version_id, m.engine, MEASUREMENTS_KEPT),
        )

    def measurements(self, version_id: str, engine: str) -> list[Measurement]:
        """The measurements of a version on an engine, newest first; empty if the rows cannot be read, because
        measurements only improve an estimate."""
        return self._measurements(version_id, "WHERE version_id = ? AND engine = ?", (version_id, engine))

    def all_measurements(self) -> list[Measurement]:
        """The measurements of all versions, newest first; empty if the rows cannot be read."""
        return self._measurements("all versions", "", ())

    def _measurements(self, what: str, where: str, values: tuple[str, ...]) -> list[Measurement]:
        try:
            rows = self.rows("measurements", _MEASURED, f"{where} ORDER BY measured_at DESC, rowid DESC", values)
        except Problem as problem:
            log.error("the measurements of %s are not used: %s", what, problem)
            return []
        return [m for m in (Measurement(*row) for row in rows) if _is_plausible(m)]


def _event(row: tuple[Any, ...]) -> dict[str, Any]:
    event = dict(zip(("event_id", "event_ts", "event_type", "stage", "event_content"), row, strict=True))
    return event | {"event_ts": stored_time(event["event_ts"])}


def _is_plausible(measurement: Measurement) -> bool:
    sizes = (measurement.measured_bytes, measurement.estimated_bytes, measurement.gpu_bytes or 0)
    counts = (measurement.context_length, measurement.slots)
    return all(0 <= size < MAX_BYTES for size in sizes) and all(0 <= count < MAX_COUNT for count in counts)


def stored_problem(text: str | None) -> Problem | None:
    """A stored problem; a damaged one is replaced by one that says so."""
    if text is None:
        return None
    try:
        problem = Problem.from_dict(json.loads(text))
        texts = [value for value in (problem.stage, problem.hint, *problem.log_tail) if value is not None]
        if 400 <= problem.status < 600 and all(isinstance(value, str) for value in texts):
            return problem
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    return Problem(Code.UNREADABLE_ROW, "The stored reason of the failure can't be read.", hint="Launch it again.")
