"""Launches and terminations are stored although another program locks the database for a moment."""

from __future__ import annotations

import asyncio

import pytest

from xinference.control import store_writer as module
from xinference.control.store_writer import StoreWriter
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.store.database import Store

BUSY = Problem(Code.STORE_BUSY, "Another program has locked the database.")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(module, "NOTE_SECONDS", 0.0)


def refuse(monkeypatch: pytest.MonkeyPatch, store: Store, *answers: Problem | None) -> list[str]:
    """Let the next attempts to add a row end so; returns the uids of all attempts."""
    attempts: list[str] = []
    left, add = list(answers), store.add_deployment

    def add_deployment(uid: str, request: str, created: float | None = None) -> None:
        attempts.append(uid)
        if left and (problem := left.pop(0)) is not None:
            raise problem
        add(uid, request, created)

    monkeypatch.setattr(store, "add_deployment", add_deployment)
    return attempts


async def test_a_row_is_added_after_the_lock_has_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse(monkeypatch, store, BUSY, BUSY)
    await StoreWriter(store).add_deployment("m", "{}", 5.0)
    assert len(attempts) == 3 and [(row.uid, row.created) for row in store.deployments()] == [("m", 5.0)]


async def test_a_lock_that_stays_refuses_the_launch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse(monkeypatch, store, *[BUSY] * 9)
    with pytest.raises(Problem) as refused:
        await StoreWriter(store).add_deployment("m", "{}", 5.0)
    assert refused.value.code == "store_busy" and len(attempts) == 3 and store.deployments() == []


async def test_another_problem_is_not_retried(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = refuse(monkeypatch, store, Problem(Code.DISK_FULL, "The disk is full."))
    with pytest.raises(Problem) as refused:
        await StoreWriter(store).add_deployment("m", "{}", 5.0)
    assert refused.value.code == "disk_full" and len(attempts) == 1


@pytest.mark.parametrize(("written", "attempts"), [([True], 1), ([False, True], 2), ([False] * 9, 3)])
async def test_the_removal_of_a_row_waits_until_it_is_stored_but_not_for_ever(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    written: list[bool],
    attempts: int,
) -> None:
    answers = list(written)
    monkeypatch.setattr(store, "remove_deployment", lambda uid: None)
    monkeypatch.setattr(store, "write_notes", lambda: not answers or answers.pop(0))
    await StoreWriter(store).remove_deployment("m")
    assert len(written) - len(answers) == attempts
    assert ("the termination of m is not stored yet" in caplog.text) is (True not in written)


async def test_delayed_changes_are_written_until_the_task_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    twice, count = asyncio.Event(), 0

    def write_notes() -> bool:
        nonlocal count
        count += 1
        if count == 2:
            twice.set()
        return True

    monkeypatch.setattr(store, "write_notes", write_notes)
    task = asyncio.create_task(StoreWriter(store).run())
    await twice.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_database_that_was_deleted_is_logged_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer = StoreWriter(store)
    writer.write_notes()
    assert caplog.text == ""
    monkeypatch.setattr(store, "is_replaced", lambda: True)
    writer.write_notes()
    writer.write_notes()
    assert caplog.text.count("deleted or replaced") == 1
