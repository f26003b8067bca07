"""A damaged row hides no other row, a table of another form is refused by name, and nothing is deleted."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from xinference.cluster.rows import ClusterRows
from xinference.errors import Problem
from xinference.keys.key import Key
from xinference.keys.keyring import Keyring
from xinference.keys.new_key import MAX_LIFETIME, NewKey, check
from xinference.keys.rows import KeyRows
from xinference.keys.sessions import Lifetime, Sessions
from xinference.nodes.join_tokens import TokenRow, create_token, use_token
from xinference.store.database import Measurement, Store
from xinference.store.launch_history import LaunchHistory
from xinference.store.row_types import expected_tables, value_fault
from xinference.store.usage import read_usage

NOW = 1_800_000_000.0
#: One good row of each table; a column that is left out is 0 or has its default.
GOOD: dict[str, dict[str, Any]] = {
    "deployments": {"uid": "m", "request": "{}", "created": NOW},
    "replicas": {"replica_id": "r1", "uid": "m", "position": 0, "started": NOW},
    "events": {"uid": "m", "event_ts": NOW, "event_type": "INFO", "stage": "start", "event_content": "hello"},
    "measurements": {
        "version_id": "v",
        "engine": "llama.cpp",
        "context_length": 512,
        "slots": 1,
        "measured_bytes": 100,
        "estimated_bytes": 90,
        "measured_at": NOW,
    },
    "keys": {"key_id": "k", "name": "n", "digest": b"d" * 32, "scopes": '["use"]', "created": NOW},
    "launches": {"uid": "m", "request": "{}", "created": NOW},
    "usage_minutes": {"minute": 30_000_000, "model": "m", "key_id": "k", "path": "/v1/x", "status": 200},
    "sessions": {"session_id": "s", "digest": b"s" * 32, "key_id": "k", "created": NOW, "last_used": NOW},
    "cluster_nodes": {"node_id": "n0", "name": "box", "key_hash": "a", "labels": "{}", "added": NOW},
    "join_tokens": {"token_id": "t", "digest": "d", "expires": 9e9},
    "cluster_values": {"name": "epoch", "value": "3"},
}
#: Values that a column may have after a fault of the disk, or by a program that does not know its type.
WRONG: tuple[Any, ...] = (None, "", "x", b"\xff\x00", -1, 2**63 - 1, -(2**63), 9e999, 1e300, 2.5, "A" * 100_000)
READERS: dict[str, Callable[[Store], Any]] = {
    "deployments": lambda store: [row.created for row in store.deployments()],
    "replicas": lambda store: sorted(store.replica_ids() | {row.replica_id for row in store.replicas("m")}),
    "events": lambda store: store.events("m"),
    "measurements": lambda store: [m.measured_bytes for m in store.all_measurements()],
    "keys": lambda store: [key.to_dict() for key in KeyRows(store).all().keys],
    "launches": lambda store: [(row.created, row.ready, row.ended) for row in LaunchHistory(store).all()],
    "usage_minutes": lambda store: [each.requests for each in read_usage(store, ("model",), 0, 1 << 40).values()],
    "sessions": lambda store: len(Sessions(store, Lifetime(), lambda: None).as_keys({})),
    "cluster_nodes": lambda store: [(row.added, row.removed) for row in ClusterRows(store).nodes()],
    "join_tokens": lambda store: [(row.expires, row.uses_left) for row in ClusterRows(store).tokens()],
    "cluster_values": lambda store: ClusterRows(store).next_epoch(),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "xinference.db"
    with closing(Store(path)) as store, store.write() as db:
        for table in GOOD:
            add(db, table)
    return path


def add(db: sqlite3.Connection, table: str, **changed: Any) -> None:
    """Add the good row of a table, with some values of another kind."""
    columns = expected_tables()[table].columns
    plain = {name: 0 for name, column in columns.items() if not (column.is_optional or column.has_default)}
    automatic = {"event_id", "launch_id"} - changed.keys()
    row = {name: value for name, value in {**plain, **GOOD[table], **changed}.items() if name not in automatic}
    db.execute(f"INSERT INTO {table}({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))


def loosen(path: Path, table: str) -> None:
    """Replace a table by one without types, and add a row for each column and wrong value."""
    with closing(sqlite3.connect(path)) as db:
        names = ", ".join(expected_tables()[table].columns)
        rows = db.execute(f"SELECT {names} FROM {table}").fetchall()
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute(f"DROP TABLE {table}")
        db.execute(f"CREATE TABLE {table}({names})")
        marks = ", ".join("?" * len(expected_tables()[table].columns))
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        for column in expected_tables()[table].columns:
            for value in WRONG:
                db.execute(f"INSERT INTO {table}({column}) VALUES (?)", (value,))
                db.execute(f"INSERT INTO {table} SELECT * FROM {table} WHERE rowid = 1")
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = last_insert_rowid()", (value,))
        db.commit()


@pytest.mark.parametrize("table", GOOD)
def test_damaged_rows_of_any_type_are_left_out_and_hide_no_other(
    path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loosen(path, table)
    monkeypatch.setattr("xinference.store.connection.form_fault", lambda db: None)
    with closing(Store(path)) as store:
        found = READERS[table](store)
    json.dumps(found, allow_nan=False)
    assert found or table == "sessions"


def test_a_damaged_row_is_logged_once_with_its_file_table_and_number_and_stays(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loosen(path, "launches")
    monkeypatch.setattr("xinference.store.connection.form_fault", lambda db: None)
    with closing(Store(path)) as store, caplog.at_level(logging.ERROR):
        count = store.read("SELECT count(*) FROM launches")
        LaunchHistory(store).all()
        LaunchHistory(store).all()
        assert store.read("SELECT count(*) FROM launches") == count
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(set(lines)) and f"row 2 of the table launches in {path}" in "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TABLE sessions", "sessions is missing"),
        ("ALTER TABLE keys DROP COLUMN priority", "keys has no column priority"),
        ("ALTER TABLE launches RENAME COLUMN ended TO over", "launches has no column ended"),
        ("ALTER TABLE events RENAME TO e; CREATE TABLE events(event_id, uid)", "column event_id of the table events"),
        ("ALTER TABLE events RENAME TO e; CREATE VIEW events AS SELECT * FROM e", "events is missing"),
        ("CREATE TRIGGER t BEFORE INSERT ON keys BEGIN SELECT raise(ABORT, 'no'); END", "keys has the trigger t"),
        ("PRAGMA user_version = -3", "number -3"),
    ],
)
def test_a_file_whose_tables_have_another_form_is_refused_with_the_table(path: Path, change: str, named: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(change)
    with pytest.raises(Problem) as caught:
        Store(path)
    assert caught.value.code == "store_unusable" and named in caught.value.cause
    assert str(path) in caught.value.cause and "backup" in (caught.value.hint or "")


def test_a_table_with_a_further_column_is_read_and_written(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        for table in GOOD:
            db.execute(f"ALTER TABLE {table} ADD COLUMN note TEXT")
    with closing(Store(path)) as store:
        store.add_measurement(Measurement("other", "llama.cpp", 512, 1, 100, 90))
        assert len(store.all_measurements()) == 2 and store.waiting == ()


def test_launches_are_recorded_though_one_has_the_highest_number(path: Path) -> None:
    with closing(Store(path)) as store:
        with store.write() as db:
            add(db, "launches", launch_id=2**63 - 1)
        LaunchHistory(store).begun("new", "{}", NOW)
        assert store.waiting == () and "new" in {row.uid for row in LaunchHistory(store).all()}


def test_an_event_with_the_highest_number_does_not_end_the_numbers_of_events(path: Path) -> None:
    with closing(Store(path)) as store, store.write() as db:
        add(db, "events", event_id=2**63 - 1)
    with closing(Store(path)) as store:
        store.add_event("other", "INFO", "start", "kept")
        assert [event["event_content"] for event in store.events("other")] == ["kept"]


@pytest.mark.parametrize("epoch", ["x", "", "9" * 5000, "-4", "1e9"])
def test_a_damaged_epoch_is_replaced_by_a_higher_one(path: Path, epoch: str) -> None:
    with closing(Store(path)) as store:
        with store.write() as db:
            db.execute("UPDATE cluster_values SET value = ?", (epoch,))
        assert ClusterRows(store).next_epoch() > (time.time() - 60 if epoch else 0)


def test_a_session_from_the_future_ends_like_one_that_begins_now(path: Path) -> None:
    at = [NOW]
    with closing(Store(path)) as store:
        with store.write() as db:
            db.execute("UPDATE sessions SET created = 4e12, last_used = 9e999")
        sessions = Sessions(store, Lifetime(), lambda: None, clock=lambda: at[0])
        key = Key("k", "n", b"k" * 32, frozenset(("use",)))
        at[0] += Lifetime().longest + 1
        assert sessions.as_keys({"k": key}) == []


def test_a_join_token_with_a_negative_number_of_uses_is_refused() -> None:
    token, row = create_token("0" * 16, NOW, 60.0, 1)
    with pytest.raises(Problem) as caught:
        use_token(TokenRow(row.token_id, row.digest, row.expires, -1), token, NOW)
    assert caught.value.code == "join_token_refused"


def test_all_keys_are_deleted_also_one_without_an_id(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loosen(path, "keys")
    monkeypatch.setattr("xinference.store.connection.form_fault", lambda db: None)
    with closing(Store(path)) as store:
        keys = Keyring(store)
        assert keys.table.required
        keys.remove_all()
        assert store.read("SELECT count(*) FROM keys") == [(0,)] and not keys.table.required


def test_a_key_cannot_expire_after_the_last_date() -> None:
    with pytest.raises(Problem, match="expire"):
        check(NewKey(expires_in=MAX_LIFETIME))


def test_a_damaged_value_is_shown_without_its_control_characters() -> None:
    fault = value_fault("launches", "created", "\x1b[31mred\r\n")
    assert fault is not None and fault.isprintable()


@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"\x1b[31m"])
def test_a_damaged_schema_is_a_problem_in_plain_characters(path: Path, damaged: bytes) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()
    for name in (b"TABLE launches", b"TABLE sessions"):
        data = data.replace(name, damaged.ljust(len(name), b"!"))
    path.write_bytes(data)
    with pytest.raises(Problem) as caught:
        Store(path)
    assert caught.value.code == "store_unusable" and caught.value.cause.isprintable()


def test_a_damaged_row_of_usage_is_logged_and_not_counted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Store(path)) as store, caplog.at_level(logging.ERROR):
        with store.write() as db:
            add(db, "usage_minutes", requests=2)
            add(db, "usage_minutes", requests=2**62)
        assert [each.requests for each in read_usage(store, ("model",), 0, 1 << 40).values()] == [2]
    assert "row 3 of the table usage_minutes" in caplog.text
