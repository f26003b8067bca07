"""A pytest plugin: stores in the process of the tests are made fast, in hundreds of tests.

They wait for the disk only where a change is durable. The tables of the first new store are made by the steps of the
schema; those of the next ones are a copy.
"""

from __future__ import annotations

import functools
import sqlite3
from typing import Any

from xinference.store.connection import Connection

_make_tables = Connection._migrate


class _Unsynced(sqlite3.Connection):
    """A connection whose first level of synchronization, that of an opened store, is none."""

    _is_open = False

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA synchronous=NORMAL" and not self._is_open:
            self._is_open = True
            statement = "PRAGMA synchronous=OFF"
        return super().execute(statement, *parameters)


def pytest_configure() -> None:
    Connection._migrate = _copy_tables  # type: ignore[method-assign, assignment]  # it holds for the whole process
    sqlite3.connect = functools.partial(sqlite3.connect, factory=_Unsynced)  # type: ignore[assignment]  # it holds for the whole process


def _copy_tables(store: Connection) -> None:
    if store._db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
        _tables().backup(store._db)
    _make_tables(store)


@functools.cache
def _tables() -> sqlite3.Connection:
    """A new store in memory."""
    store = Connection.__new__(Connection)
    store._db = sqlite3.connect(":memory:", isolation_level=None)
    _make_tables(store)
    return store._db
