"""The state that survives a crash: deployments, their replicas and events, in one SQLite file in WAL mode.

A row is desired state: the row of a deployment is written before its engines start, and deleted after they have
exited. All calls are short and synchronous. One process owns the file: the server that holds the home's lock.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.store.schema import SCHEMA_VERSION, SCHEMAS

MAX_EVENTS = 100


@dataclass(frozen=True)
class DeploymentRow:
    """One stored deployment; `request` is the JSON text, validated by its reader."""

    uid: str
    request: str
    wanted: bool
    problem: Problem | None
    created: float


@dataclass(frozen=True)
class ReplicaRow:
    """One replica that was started and whose exit is not known."""

    replica_id: str
    uid: str
    position: int


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


class Store:
    """Reads and writes the rows of one home."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, private to its owner.

        Raises:
            Problem: 500, the file can't be opened, is damaged, or was written by a newer version.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        except (OSError, sqlite3.DatabaseError) as error:
            raise self._broken(error) from None

    def close(self) -> None:
        self._db.close()

    def add_deployment(self, uid: str, request: str) -> None:
        with self.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO deployments(uid, request, created) VALUES (?, ?, ?)",
                (uid, request, time.time()),
            )

    def set_unwanted(self, uid: str) -> None:
        """Mark a deployment for termination: after a crash it is still terminated."""
        with self.write() as db:
            db.execute("UPDATE deployments SET wanted = 0 WHERE uid = ?", (uid,))

    def set_request(self, uid: str, request: str) -> None:
        """Store a change of the request, such as the number of replicas."""
        with self.write() as db:
            db.execute("UPDATE deployments SET request = ? WHERE uid = ?", (request, uid))

    def set_problem(self, uid: str, problem: Problem | None) -> None:
        text = None if problem is None else json.dumps(problem.to_dict())
        with self.write() as db:
            db.execute("UPDATE deployments SET problem = ? WHERE uid = ?", (text, uid))

    def remove_deployment(self, uid: str) -> None:
        with self.write() as db:
            db.execute("DELETE FROM deployments WHERE uid = ?", (uid,))
            db.execute("DELETE FROM events WHERE uid = ?", (uid,))

    def deployments(self) -> list[DeploymentRow]:
        """All deployments, oldest first."""
        rows = self._db.execute("SELECT uid, request, wanted, problem, created FROM deployments ORDER BY created")
        return [DeploymentRow(r[0], r[1], bool(r[2]), _problem(r[3]), r[4]) for r in rows]

    def add_replica(self, replica_id: str, uid: str, position: int) -> None:
        with self.write() as db:
            db.execute("INSERT INTO replicas VALUES (?, ?, ?, ?)", (replica_id, uid, position, time.time()))

    def remove_replica(self, replica_id: str) -> None:
        with self.write() as db:
            db.execute("DELETE FROM replicas WHERE replica_id = ?", (replica_id,))

    def replicas(self, uid: str) -> list[ReplicaRow]:
        rows = self._db.execute(
            "SELECT replica_id, uid, position FROM replicas WHERE uid = ? ORDER BY position", (uid,)
        )
        return [ReplicaRow(*r) for r in rows]

    def add_event(self, uid: str, event_type: str, stage: str, content: str) -> dict[str, Any]:
        """Store an event, assign its number, and delete all but the newest `MAX_EVENTS` events of the deployment."""
        now = time.time()
        with self.write() as db:
            cursor = db.execute(
                "INSERT INTO events(uid, event_ts, event_type, stage, event_content) VALUES (?, ?, ?, ?, ?)",
                (uid, now, event_type, stage, content),
            )
            db.execute(
                "DELETE FROM events WHERE uid = ? AND event_id <= "
                "(SELECT event_id FROM events WHERE uid = ? ORDER BY event_id DESC LIMIT 1 OFFSET ?)",
                (uid, uid, MAX_EVENTS),
            )
        return _event((cursor.lastrowid, now, event_type, stage, content))

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first."""
        rows = self._db.execute(
            "SELECT event_id, event_ts, event_type, stage, event_content FROM events WHERE uid = ? ORDER BY event_id",
            (uid,),
        )
        return [_event(r) for r in rows]

    def remove_events(self, uid: str) -> None:
        with self.write() as db:
            db.execute("DELETE FROM events WHERE uid = ?", (uid,))

    def add_measurement(self, measurement: Measurement) -> None:
        """Store a measurement; it replaces an earlier one with the same engine, context and slots."""
        m = measurement
        with self.write() as db:
            db.execute(
                "INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(m.version_id, m.engine, m.context_length, m.slots),
                    *(m.measured_bytes, m.estimated_bytes, m.gpu_bytes, time.time()),
                ),
            )

    def measurements(self, version_id: str, engine: str) -> list[Measurement]:
        """The measurements of a version on an engine, newest first."""
        rows = self._db.execute(
            "SELECT version_id, engine, context_length, slots, measured_bytes, estimated_bytes, gpu_bytes "
            "FROM measurements WHERE version_id = ? AND engine = ? ORDER BY measured_at DESC, rowid DESC",
            (version_id, engine),
        )
        return [Measurement(*row) for row in rows]

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of `query`.

        Raises:
            Problem: 500, the file can't be read.
        """
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from None

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: commits all changes of the block, or none if it raises.

        `durable`: sync to the disk before returning; otherwise a power cut can lose the last transactions.

        Raises:
            Problem: 500, the file can't be written.
        """
        try:
            if durable:
                self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from None
        finally:
            if durable:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise Problem(
                Code.STORE_TOO_NEW,
                f"{self._path} has the schema {version} of a newer Xinference; this one supports {SCHEMA_VERSION}.",
                hint="Upgrade, or set XINFERENCE_HOME to another folder.",
            )
        for number, added in enumerate(SCHEMAS[version:], version + 1):
            self._db.executescript(f"BEGIN; {added} PRAGMA user_version = {number}; COMMIT;")

    def _broken(self, error: Exception) -> Problem:
        return Problem(
            Code.STORE_UNUSABLE,
            f"The store {self._path} can't be used: {error}.",
            hint="Free disk space or correct its permissions; if it is damaged, move it away and launch again.",
        )


def _event(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(("event_id", "event_ts", "event_type", "stage", "event_content"), row, strict=True))


def _problem(text: str | None) -> Problem | None:
    if text is None:
        return None
    try:
        return Problem.from_dict(json.loads(text))
    except (ValueError, TypeError, AttributeError):
        return Problem(Code.UNREADABLE_ROW, "The stored reason of the failure can't be read.", hint="Launch it again.")
