"""A store that is full, locked or damaged: notes wait, transactions are refused by type, and nothing blocks."""

from __future__ import annotations

import errno
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from xinference.errors import Problem
from xinference.keys.rows import KeyRows
from xinference.store.connection import NOTES_KEPT
from xinference.store.database import MAX_EVENTS, MEASUREMENTS_KEPT, Measurement, Store

LARGE = "x" * 20_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "xinference.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(path)) as store:
        yield store


class Lock:
    """Another program that holds the lock of the file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("BEGIN EXCLUSIVE")

    def release(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


def fill(store: Store) -> None:
    """Let the file not grow any more: SQLite reports the same error as for a full disk."""
    store._db.execute("PRAGMA max_page_count=1")


def empty(store: Store) -> None:
    store._db.execute("PRAGMA max_page_count=100000")


def test_a_note_waits_for_the_lock_of_another_program_without_blocking(
    path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(path)
    timeouts: list[str] = []
    store._db.set_trace_callback(timeouts.append)
    store.add_event("m", "INFO", "start", "first")
    store.add_event("m", "INFO", "start", "second")
    assert next(text for text in timeouts if "busy_timeout" in text) == "PRAGMA busy_timeout=0"
    assert [event["event_content"] for event in store.events("m")] == ["first", "second"], "a reader gets it at once"
    assert not store.write_notes()
    lock.release()
    assert store.write_notes() and not store.waiting
    with closing(Store(path)) as later:
        assert [event["event_content"] for event in later.events("m")] == ["first", "second"]


def test_a_row_that_must_be_stored_is_refused_by_type_while_the_file_is_locked(path: Path, store: Store) -> None:
    lock = Lock(path)
    before = time.monotonic()
    with pytest.raises(Problem) as refused:
        store.add_deployment("m", "{}")
    assert (refused.value.code, refused.value.status) == ("store_busy", 503)
    lock.release()
    assert store.deployments() == [] and time.monotonic() - before < 30
    store.add_deployment("m", "{}")
    assert [row.uid for row in store.deployments()] == ["m"]


def test_a_full_disk_refuses_a_launch_and_lets_notes_wait(path: Path, store: Store) -> None:
    store.add_deployment("old", "{}")
    fill(store)
    with pytest.raises(Problem) as refused:
        store.add_deployment("new", LARGE)
    assert (refused.value.code, refused.value.status) == ("disk_full", 507)
    assert [row.uid for row in store.deployments()] == ["old"], "nothing is half written"
    store.add_event("old", "INFO", "start", LARGE)
    store.set_problem("old", Problem("engine_died", LARGE))
    store.remove_replica("r1")
    assert [event["event_content"] for event in store.events("old")] == [LARGE]
    empty(store)
    store.set_request("old", "[]")
    with closing(Store(path)) as later:
        (row,) = later.deployments()
        assert row.problem is not None and row.problem.cause == LARGE and row.request == "[]"
        assert len(later.events("old")) == 1


def test_notes_are_written_before_a_later_row(path: Path, store: Store) -> None:
    """The removal of an earlier deployment must not remove the later one of the same uid."""
    store.add_deployment("m", "first")
    lock = Lock(path)
    store.add_event("m", "INFO", "stop", "of the first")
    store.remove_deployment("m")
    assert store.events("m") == []
    lock.release()
    store.add_deployment("m", "second")
    assert store.write_notes()
    assert [(row.uid, row.request) for row in store.deployments()] == [("m", "second")]
    assert store.events("m") == []


def test_the_number_of_waiting_notes_has_a_limit_and_one_that_can_not_be_written_holds_up_no_other(
    path: Path, store: Store
) -> None:
    store.add_event("m", "INFO", "start", "first")
    lock = Lock(path)
    store.note("INSERT INTO replicas(replica_id, uid, position, started) VALUES ('r', 'no such deployment', 0, 0)")
    for number in range(NOTES_KEPT):
        store.note("UPDATE deployments SET wanted = 0 WHERE uid = ?", str(number))
    assert len(store.waiting) == NOTES_KEPT
    store.note("INSERT INTO replicas(replica_id, uid, position, started) VALUES ('r', 'no such deployment', 0, 0)")
    store.add_event("m", "INFO", "start", "last")
    lock.release()
    assert store.write_notes()
    assert [event["event_content"] for event in store.events("m")] == ["first", "last"]


def test_the_end_of_the_server_writes_what_waits(path: Path) -> None:
    store = Store(path)
    lock = Lock(path)
    store.add_event("m", "INFO", "start", "first")
    lock.release()
    store.close()
    with closing(Store(path)) as later:
        assert len(later.events("m")) == 1


def test_the_numbers_of_events_never_repeat(path: Path) -> None:
    with closing(Store(path)) as store:
        first = store.add_event("m", "INFO", "start", "first")["event_id"]
        store.remove_events("m")
    with closing(Store(path)) as store:
        assert store.add_event("m", "INFO", "start", "second")["event_id"] == first + 1


def damage(path: Path) -> None:
    """Write over every page but the first."""
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))


def test_every_read_of_a_damaged_file_is_a_problem_and_none_a_defect(path: Path) -> None:
    with closing(Store(path)) as store:
        for number in range(50):
            store.add_event("m", "INFO", "start", f"{number}{LARGE[:500]}")
            store.add_deployment(f"m{number}", LARGE)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(path)
        store._db.execute("PRAGMA shrink_memory")
        reads = (store.deployments, lambda: store.events("m"), lambda: store.replicas("m"), store.replica_ids)
        for read in (*reads, KeyRows(store).all):
            with pytest.raises(Problem) as caught:
                read()
            assert caught.value.code == "store_unusable"
        assert store.measurements("v", "llama.cpp") == []
        with pytest.raises(Problem):
            store.add_deployment("n", LARGE)
        store.add_event("m", "INFO", "start", "not stored, and no error")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE deployments SET created = 9e999",
        'UPDATE deployments SET problem = \'{"code": "x", "stage": {}, "status": 7}\'',
        "UPDATE deployments SET problem = '{\"log_tail\": [1, 2]}'",
        "UPDATE deployments SET request = CAST(x'ff00' AS TEXT)",
        "UPDATE events SET event_ts = 9e999, event_content = CAST(x'fffe' AS TEXT)",
        "UPDATE measurements SET measured_bytes = -5",
        "UPDATE measurements SET estimated_bytes = 9223372036854775807",
    ],
)
def test_one_damaged_row_is_read_and_hides_no_other(path: Path, change: str) -> None:
    with closing(Store(path)) as store:
        store.add_deployment("m", "{}")
        store.set_problem("m", Problem("engine_died", "It died."))
        store.add_event("m", "INFO", "start", "hello")
        store.add_measurement(Measurement("v", "llama.cpp", 512, 1, 100, 90))
        store._db.execute(change)
    with closing(Store(path)) as store:
        store.add_deployment("other", "{}")
        assert {row.uid for row in store.deployments()} == {"m", "other"}
        for row in store.deployments():
            json.dumps([row.created, row.problem and row.problem.to_dict()], allow_nan=False)
        json.dumps(store.events("m"), allow_nan=False)
        assert all(
            0 <= m.measured_bytes < 1000 and m.estimated_bytes < 1000 for m in store.measurements("v", "llama.cpp")
        )


def test_measurements_and_events_have_an_end(store: Store) -> None:
    for number in range(2 * MEASUREMENTS_KEPT):
        store.add_measurement(Measurement("v", "llama.cpp", number, 1, 100, 90))
    assert [m.context_length for m in store.measurements("v", "llama.cpp")][:2] == [39, 38]
    assert len(store.measurements("v", "llama.cpp")) == MEASUREMENTS_KEPT
    for number in range(MAX_EVENTS + 5):
        store.add_event("m", "INFO", "start", str(number))
    assert len(store.events("m")) == MAX_EVENTS
    store.remove_other_events(["other"])
    assert store.events("m") == []


def test_a_file_that_is_deleted_or_replaced_is_noticed(path: Path, store: Store) -> None:
    assert not store.is_replaced()
    path.unlink()
    assert store.is_replaced()
    path.write_bytes(b"")
    assert store.is_replaced()


def _damaged(path: Path) -> None:
    Store(path).close()
    path.write_bytes(path.read_bytes()[:5000])


def _read_only_file_system(path: Path) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


@pytest.mark.parametrize(
    ("prepare", "text", "hint"),
    [
        (_damaged, "malformed", "Restore it from a backup, or move it away"),
        (Path.mkdir, "Is a directory", "set XINFERENCE_HOME to another folder"),
        (None, "Read-only file system", "set XINFERENCE_HOME to another folder"),
    ],
    ids=["damaged", "folder", "read-only"],
)
def test_a_file_that_cannot_be_opened_is_named_once_with_a_way_out(
    path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Path], None] | None, text: str, hint: str
) -> None:
    if prepare is not None:
        prepare(path)
    else:
        monkeypatch.setattr("os.open", lambda *_: _read_only_file_system(path))
    with pytest.raises(Problem) as refused:
        Store(path)
    assert text in refused.value.cause and refused.value.cause.count(str(path)) == 1
    assert "Errno" not in refused.value.cause and hint in (refused.value.hint or "")


def test_an_empty_file_in_place_of_the_database_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Store(path).close()
    assert not caplog.text
    path.write_bytes(b"")
    Store(path).close()
    assert "was empty: the models and API keys of an earlier server are not in it" in caplog.text


def test_a_file_of_a_newer_version_is_not_called_empty(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1000")
    with suppress(Problem):
        Store(path).close()
    assert "was empty" not in caplog.text
