"""The connection to the database file: transactions, notes that can wait, and typed errors of every read and write."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sqlite3
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.write_errors import is_disk_full
from xinference.store.row_types import form_fault, printable, row_fault
from xinference.store.schema import SCHEMA_VERSION, SCHEMAS

log = logging.getLogger(__name__)

#: Maximum time for a lock of another program while the file is opened, before anything is served.
OPEN_SECONDS = 5.0
#: The same for a transaction, which runs in the event loop; a note does not wait at all.
WRITE_SECONDS = 0.1
#: Maximum number of notes that wait; beyond it the oldest is lost.
NOTES_KEPT = 2000
#: Maximum number of damaged rows that are remembered, so that each is logged once.
MAX_REPORTED = 1000
#: A disk with less free space than this is full: SQLite reports some failed writes only as I/O errors.
FULL_BYTES = 256 * 1024
#: The errors of a disk or store that cannot be written now. They do not indicate a failure of a model.
WRITE_PROBLEMS = frozenset({Code.DISK_FULL, Code.STORE_BUSY, Code.STORE_UNUSABLE, Code.CANNOT_WRITE})
#: The hint for a file that is damaged, or has other tables than those of the schema.
OTHER_FORM = "Restore it from a backup, or move it away: a new one has no models and no API keys."

#: The hint for a file that this user cannot open or write.
NOT_WRITABLE = "Check the owner and permissions of the file and its folder, or set XINFERENCE_HOME to another folder."

#: The hint for any other error.
UNKNOWN_CAUSE = "Correct its permissions; if it is damaged, move it away and launch again."

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
#: The errors of a database; the text of an error about a damaged schema may not be UTF-8.
_DB_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_REFUSED = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_WRITE_ERRORS = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


@dataclass(frozen=True)
class Note:
    """A change that can be written later: one statement, with its parameters."""

    statement: str
    parameters: tuple[Any, ...]
    subject: str = ""
    """The uid of the events that the change concerns; readers search the waiting notes for it."""
    row: tuple[Any, ...] = ()
    """The added event; (): the events of the subject are removed."""


class Connection:
    """One database file. Only one process writes it: the server that has locked the home."""

    def __init__(self, path: Path) -> None:
        """Open or create the file, private to its owner.

        Raises:
            Problem: 507 ``disk_full``; 503 ``store_busy``; 500, it is damaged, or was written by a newer version.
        """
        self._path = path
        self._notes: deque[Note] = deque(maxlen=NOTES_KEPT)
        self._reported: set[tuple[str, int]] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            existed = path.exists()
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = self._open()
            versions = [self._db.execute(f"PRAGMA {each}_version").fetchone()[0] for each in ("schema", "user")]
            if existed and versions == [0, 0]:
                log.warning("%s was empty: the models and API keys of an earlier server are not in it.", path)
            self._migrate()
            status = path.stat()
            self._identity = (status.st_dev, status.st_ino)
        except (OSError, *_DB_ERRORS) as error:
            raise self._problem(error) from None

    def close(self) -> None:
        """Write the waiting notes, if possible, and close the file."""
        self.write_notes()
        self._db.close()

    def is_replaced(self) -> bool:
        """Whether the open file was deleted or replaced: the file at its path is another one."""
        try:
            status = self._path.stat()
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._identity

    # -- reads ------------------------------------------------------------------------------------------------

    def read(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of `query`.

        Raises:
            Problem: the file cannot be read.
        """
        try:
            return self._db.execute(query, parameters).fetchall()
        except _DB_ERRORS as error:
            raise self._problem(error) from None

    def rows(self, table: str, columns: str, rest: str = "", parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of `table`, without those that have a value of another type than the schema declares.

        A damaged row is logged once and stays in the file.

        Args:
            columns: names, separated by commas.
            rest: the conditions and the order.

        Raises:
            Problem: the file cannot be read.
        """
        names = [name.strip() for name in columns.split(",")]
        found = []
        for number, *row in self.read(f"SELECT rowid, {columns} FROM {table} {rest}", parameters):  # noqa: S608 -- the names are constants of the callers
            if (fault := row_fault(table, names, row)) is None:
                found.append(tuple(row))
            else:
                self.report_damaged(table, number, fault)
        return found

    def report_damaged(self, table: str, number: int, fault: str) -> None:
        """Log a damaged row, unless it was logged before."""
        if (table, number) in self._reported or len(self._reported) >= MAX_REPORTED:
            return
        self._reported.add((table, number))
        log.error(
            "row %d of the table %s in %s is damaged and is left out: %s. To delete it, stop the server and run: "
            "sqlite3 %s 'DELETE FROM %s WHERE rowid = %d'",
            *(number, table, self._path, fault, shlex.quote(str(self._path)), table, number),
        )

    # -- writes -----------------------------------------------------------------------------------------------

    @contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction: commits the waiting notes and all changes of the block, or nothing if it raises.

        `durable`: sync to the disk before returning; otherwise a power cut can lose the last transactions.

        Raises:
            Problem: 507 ``disk_full``; 503 ``store_busy``, another program has locked the file; 500.
        """
        try:
            if durable:
                self._db.execute("PRAGMA synchronous=FULL")
            with self._transaction():
                self._apply_notes()
                yield self._db
            self._notes.clear()
        except _DB_ERRORS as error:
            raise self._problem(error) from None
        finally:
            if durable:
                self._db.execute("PRAGMA synchronous=NORMAL")

    def note(self, statement: str, *parameters: Any, subject: str = "", row: tuple[Any, ...] = ()) -> None:
        """Make a change that may be written later. The call neither waits nor raises.

        If the file is full or locked, the change waits for the next transaction that succeeds. All changes are written
        in the order in which they were made. A crash before that loses the change.
        """
        waiting = bool(self._notes)
        self._notes.append(Note(statement, parameters, subject, row))
        if not waiting:
            self.write_notes()

    @property
    def waiting(self) -> tuple[Note, ...]:
        """The notes that are not written yet, oldest first."""
        return tuple(self._notes)

    def write_notes(self) -> bool:
        """Try to write the waiting notes, without waiting for a lock; returns whether all are written."""
        if not self._notes:
            return True
        try:
            self._db.execute("PRAGMA busy_timeout=0")
            with self._transaction():
                self._apply_notes()
        except _DB_ERRORS as error:
            if len(self._notes) == 1:  # the first one that waits
                log.warning("%s Changes wait until it can be written.", self._problem(error).cause)
            return False
        finally:
            self._db.execute(f"PRAGMA busy_timeout={int(WRITE_SECONDS * 1000)}")
        self._notes.clear()
        return True

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself ends the transaction when the disk is full
                self._db.execute("ROLLBACK")
            raise

    def _apply_notes(self) -> None:
        for note in self._notes:
            try:
                self._db.execute(note.statement, note.parameters)
            except (sqlite3.IntegrityError, OverflowError, UnicodeEncodeError) as error:  # it can never be written
                log.error("a change of the store is lost: %s: %s", note.statement, error)

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            if self._problem(error).code != Code.DISK_FULL:
                raise
        # On a full disk the shared memory file of the write-ahead log cannot be created. An exclusive lock needs none.
        return self._connect("PRAGMA locking_mode=EXCLUSIVE")

    def _connect(self, *first: str) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=OPEN_SECONDS, isolation_level=None)
        db.text_factory = lambda text: text.decode(errors="replace")  # one damaged row must not hide the others
        try:
            pragmas = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
            for statement in (*first, *(f"PRAGMA {pragma}" for pragma in pragmas)):
                db.execute(statement)
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise Problem(
                Code.STORE_TOO_NEW,
                f"{self._path} has the schema {version} of a newer Xinference; this one supports {SCHEMA_VERSION}.",
                hint="Upgrade, or set XINFERENCE_HOME to another folder.",
            )
        if version < 0:
            raise self._unusable(f"its schema has the number {version}", OTHER_FORM)
        for number, added in enumerate(SCHEMAS[version:], version + 1):
            self._db.executescript(f"BEGIN; {added} PRAGMA user_version = {number}; COMMIT;")
        if (fault := form_fault(self._db)) is not None:
            raise self._unusable(fault, OTHER_FORM)
        self._db.execute(f"PRAGMA busy_timeout={int(WRITE_SECONDS * 1000)}")

    # -- errors -----------------------------------------------------------------------------------------------

    def _problem(self, error: Exception) -> Problem:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension of the code
        if code in _BUSY:
            return Problem(
                Code.STORE_BUSY,
                f"Another program has locked the store {self._path}.",
                hint="Retry, or end the program that has locked the store.",
            )
        if self._is_full(error, code):
            return Problem(
                Code.DISK_FULL,
                f"The disk of the store {self._path} is full.",
                hint="Free disk space, and retry.",
            )
        if isinstance(error, UnicodeDecodeError):
            return self._unusable("its schema is damaged", OTHER_FORM)
        if isinstance(error, OSError):
            return self._unusable(error.strerror or str(error), NOT_WRITABLE)
        hint = NOT_WRITABLE if code in _REFUSED else OTHER_FORM if code in _DAMAGED else UNKNOWN_CAUSE
        return self._unusable(printable(str(error)), hint)

    def _unusable(self, reason: str, hint: str) -> Problem:
        return Problem(Code.STORE_UNUSABLE, f"The store {self._path} can't be used: {reason}.", hint=hint)

    def _is_full(self, error: Exception, code: int) -> bool:
        if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and is_disk_full(error)):
            return True
        if code not in _WRITE_ERRORS:
            return False
        try:
            return shutil.disk_usage(self._path.parent).free < FULL_BYTES
        except OSError:
            return False
