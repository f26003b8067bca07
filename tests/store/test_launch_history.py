"""The history of launches: bounded, newest first, with the reason of a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.store import launch_history
from xinference.store.database import Store
from xinference.store.launch_history import LaunchHistory

DIED = Problem(Code.ENGINE_DIED, "The engine exited.", log_tail=["its last words"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "x.db")) as store:
        yield store


def test_a_launch_is_recorded_when_it_begins_is_ready_and_ends(store: Store) -> None:
    history = LaunchHistory(store)
    history.begun("m", "{}", 5.0)
    (row,) = history.all()
    assert (row.uid, row.created, row.ready, row.ended, row.problem) == ("m", 5.0, None, None, None)
    history.ready("m")
    history.ended("m")
    (row,) = history.all()
    assert row.ready is not None and row.ended is not None and row.problem is None
    assert history.failure("m") is None


def test_only_the_newest_launch_of_a_uid_is_changed(store: Store) -> None:
    history = LaunchHistory(store)
    history.begun("m", "{}", 1.0)
    history.ended("m", DIED)
    history.begun("m", "{}", 2.0)
    history.ready("m")
    newest, oldest = history.all()
    assert (newest.created, newest.problem, newest.ended) == (2.0, None, None) and newest.ready is not None
    assert oldest.ready is None and oldest.problem is not None
    assert history.failure("m") is None, "it was launched again"


def test_the_failure_has_the_last_lines_and_survives_the_end_and_a_restart(store: Store, tmp_path: Path) -> None:
    history = LaunchHistory(store)
    history.begun("m", "{}", 1.0)
    history.ended("m", DIED)
    history.ended("m")
    with closing(Store(tmp_path / "x.db")) as later:
        failure = LaunchHistory(later).failure("m")
        assert failure is not None and failure.problem is not None
        assert failure.problem.to_dict() == DIED.to_dict()


def test_the_oldest_launches_are_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_history, "LAUNCHES_KEPT", 3)
    history = LaunchHistory(store)
    for number in range(10):
        history.begun(f"m{number}", "{}", float(number))
    assert [row.uid for row in history.all()] == ["m9", "m8", "m7"]


def test_a_row_of_an_earlier_release_counts_as_one_that_has_run(tmp_path: Path) -> None:
    import sqlite3

    from xinference.store.schema import SCHEMAS

    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as db:
        for number, schema in enumerate(SCHEMAS[:4], 1):
            db.executescript(f"{schema} PRAGMA user_version = {number};")
        db.execute("INSERT INTO deployments(uid, request, created) VALUES ('m', '{}', 1.0)")
        db.commit()
    with closing(Store(path)) as store:
        store.add_deployment("new", "{}")
        assert {row.uid: row.ran for row in store.deployments()} == {"m": True, "new": False}
