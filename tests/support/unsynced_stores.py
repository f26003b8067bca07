"""A pytest plugin: stores in the process of the tests wait for the disk only where a change is durable."""

from __future__ import annotations

import functools
import sqlite3
from typing import Any


class _Unsynced(sqlite3.Connection):
    """A connection whose first level of synchronization, that of an opened store, is none."""

    _is_open = False

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA synchronous=NORMAL" and not self._is_open:
            self._is_open = True
            statement = "PRAGMA synchronous=OFF"
        return super().execute(statement, *parameters)


def pytest_configure() -> None:
    sqlite3.connect = functools.partial(sqlite3.connect, factory=_Unsynced)  # type: ignore[assignment]  # for the whole process
