"""Rows survive, a bad file is a Problem, and events do not grow without end."""

from __future__ import annotations

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from xinference.errors import Problem
from xinference.store.database import MAX_EVENTS, Measurement, Store
from xinference.store.schema import SCHEMA_1, SCHEMA_VERSION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "xinference.db"


def test_rows_are_there_for_the_next_server(path: Path) -> None:
    store = Store(path)
    store.add_deployment("m", '{"model_name":"x"}')
    store.add_replica("r1", "m", 0)
    store.set_problem("m", Problem("code", "cause", status=503, hint="hint", log_tail=["a", "b"]))
    store.close()
    row = Store(path).deployments()[0]
    assert (row.uid, row.request, row.wanted) == ("m", '{"model_name":"x"}', True)
    assert row.problem is not None and row.problem.log_tail == ("a", "b")
    assert [r.replica_id for r in Store(path).replicas("m")] == ["r1"]


def test_removing_a_deployment_removes_all_that_is_its_own(path: Path) -> None:
    store = Store(path)
    store.add_deployment("m", "{}")
    store.add_replica("r1", "m", 0)
    store.add_event("m", "INFO", "start", "hello")
    store.remove_deployment("m")
    assert store.deployments() == [] and store.replicas("m") == [] and store.events("m") == []


def test_only_the_newest_events_of_each_deployment_are_kept(path: Path) -> None:
    store = Store(path)
    for number in range(MAX_EVENTS + 20):
        store.add_event("m", "INFO", "start", str(number))
    store.add_event("other", "INFO", "start", "kept")
    contents = [event["event_content"] for event in store.events("m")]
    assert contents == [str(number) for number in range(20, MAX_EVENTS + 20)]
    assert len(store.events("other")) == 1


def test_the_file_is_private_to_its_owner(path: Path) -> None:
    Store(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_a_problem_that_names_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(Problem, match=str(path)):
        Store(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Problem) as caught:
        Store(path)
    assert caught.value.code == "store_too_new"


def test_an_unreadable_reason_is_shown_as_such(path: Path) -> None:
    store = Store(path)
    store.add_deployment("m", "{}")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE deployments SET problem = '{{'")
    problem = store.deployments()[0].problem
    assert problem is not None and problem.code == "unreadable_row"


def test_a_failed_write_leaves_nothing_half_done(path: Path) -> None:
    store = Store(path)
    with pytest.raises(Problem):
        store.add_replica("r1", "no such deployment", 0)
    store.add_deployment("m", "{}")
    assert len(store.deployments()) == 1


def test_a_file_of_the_first_layout_is_brought_up_and_keeps_its_rows(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript(f"{SCHEMA_1} PRAGMA user_version = 1;")
        db.execute("INSERT INTO deployments(uid, request, created) VALUES ('m', '{}', 1.0)")
    store = Store(path)
    assert [row.uid for row in store.deployments()] == ["m"]
    assert store.measurements("v", "llama.cpp") == []
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION


def test_measurements_come_newest_first_and_one_stays_for_each_size(path: Path) -> None:
    store = Store(path)
    small, large = (Measurement("v", "llama.cpp", context, 1, 100, 90) for context in (512, 4096))
    again = replace(small, measured_bytes=120)
    for each in (small, large, again):
        store.add_measurement(each)
    assert store.measurements("v", "llama.cpp") == [again, large]
    assert store.measurements("v", "vLLM") == []
