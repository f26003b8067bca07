"""The tables and the types of their columns, as the schema declares them, and what is wrong with a stored value.

SQLite itself checks types only when it writes a row. A file that another program has changed, or a disk has damaged,
may contain any value.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

from xinference.store.schema import SCHEMAS

#: Maximum number of characters of a text, and of a text that contains JSON or the words of an event.
MAX_TEXT = 1024
MAX_LONG_TEXT = 4 << 20
#: Number of characters of a damaged value that a message shows.
SHOWN = 60

_LONG = frozenset({"request", "problem", "event_content", "scopes", "models", "labels", "value"})
_TYPES: dict[str, tuple[type, ...]] = {"INTEGER": (int,), "REAL": (float, int), "TEXT": (str,), "BLOB": (bytes,)}
_NAMES = {"INTEGER": "an integer", "REAL": "a number", "TEXT": "a text", "BLOB": "bytes"}


@dataclass(frozen=True)
class Column:
    """One column, as the schema declares it."""

    kind: str
    is_optional: bool
    """It may be NULL."""
    has_default: bool


@dataclass(frozen=True)
class Table:
    """One table, as the schema declares it."""

    columns: Mapping[str, Column]
    key: tuple[str, ...]
    """The columns of the primary key."""
    is_strict: bool


@cache
def expected_tables() -> Mapping[str, Table]:
    """The tables of the newest schema by their names."""
    with closing(sqlite3.connect(":memory:")) as db:
        for added in SCHEMAS:
            db.executescript(added)
        return _read_tables(db)


def form_fault(db: sqlite3.Connection) -> str | None:
    """How the tables of a file differ from those of the newest schema; None: they can be used.

    Further tables and further columns that may be empty are permitted.
    """
    found = _read_tables(db)
    for name, table in expected_tables().items():
        if (fault := _table_fault(name, table, found.get(name))) is not None:
            return fault
    triggers = db.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    if triggers:
        trigger, changed = (printable(str(each)) for each in triggers[0])
        return f"the table {changed} has the trigger {trigger}, which another program has added"
    return None


def value_fault(table: str, column: str, value: object) -> str | None:
    """What is wrong with a stored value; None: it has the type of its column."""
    declared = expected_tables()[table].columns[column]
    if value is None:
        return None if declared.is_optional else f"{column} is empty"
    if not isinstance(value, _TYPES[declared.kind]):
        return f"{column} is {shown(value)}, not {_NAMES[declared.kind]}"
    if isinstance(value, str) and len(value) > (limit := MAX_LONG_TEXT if column in _LONG else MAX_TEXT):
        return f"{column} has {len(value):,} characters, more than {limit:,}"
    return None


def row_fault(table: str, columns: Iterable[str], row: Iterable[Any]) -> str | None:
    """What is wrong with the first damaged value of a row; None: nothing."""
    for column, value in zip(columns, row, strict=True):
        if (fault := value_fault(table, column, value)) is not None:
            return fault
    return None


def shown(value: object) -> str:
    """A damaged value in a message: its beginning, without control characters."""
    beginning = value[:SHOWN] if isinstance(value, (str, bytes)) else value
    text = ascii(beginning)
    return f"{text}…" if isinstance(value, (str, bytes)) and len(value) > SHOWN else text


def printable(text: str) -> str:
    """A text that may contain damaged bytes, without control characters."""
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_TEXT])


def stored_time(seconds: float) -> float:
    """A stored time; 0 if it is damaged, because JSON has no infinity."""
    return seconds if math.isfinite(seconds) and 0 <= seconds < 1e11 else 0.0


def _table_fault(name: str, table: Table, found: Table | None) -> str | None:
    if found is None:
        return f"the table {name} is missing"
    for column, declared in table.columns.items():
        if column not in found.columns:
            return f"the table {name} has no column {column}"
        if found.columns[column] != declared:
            return f"the column {column} of the table {name} is declared in another way"
    if found.key != table.key or found.is_strict != table.is_strict:
        return f"the table {name} is declared in another way"
    for column in found.columns.keys() - table.columns.keys():
        added = found.columns[column]
        if not added.is_optional and not added.has_default:
            return f"the table {name} has the column {printable(column)}, which may not be empty and is not written"
    return None


def _read_tables(db: sqlite3.Connection) -> dict[str, Table]:
    listed = db.execute("PRAGMA table_list").fetchall()
    tables = {}
    for schema, name, kind, _, _, strict in listed:
        if schema != "main" or kind != "table" or name.startswith("sqlite_"):
            continue
        described = db.execute("SELECT name, type, [notnull], dflt_value, pk FROM pragma_table_info(?)", (name,))
        rows = described.fetchall()
        # A primary key of a STRICT table may hold NULL, unless it is declared otherwise; no row of ours does.
        columns = {
            column: Column(declared, not notnull and not key, default is not None)
            for column, declared, notnull, default, key in rows
        }
        keys = sorted((key, column) for column, _, _, _, key in rows if key)
        tables[name] = Table(columns, tuple(column for _, column in keys), bool(strict))
    return tables
