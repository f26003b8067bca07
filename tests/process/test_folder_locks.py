"""A folder of this user is deleted when nobody has locked it, and only then."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xinference.process.folder_locks import delete_if_unused, delete_unused, lock_shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "xinference-a")


@pytest.fixture
def replaced_before_its_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process deletes the folder and makes it again, after it was opened here and before it is locked."""
    flock = fcntl.flock

    def replace_and_lock(handle: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        folder.rename(folder.parent / "deleted")
        made(folder)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    yield
    assert fcntl.flock is flock, "the folder was replaced"


def made(folder: Path) -> Path:
    folder.mkdir()
    (folder / "file").touch()
    return folder


def test_an_unused_folder_is_deleted_with_all_that_it_contains(folder: Path) -> None:
    delete_if_unused(folder)
    assert not folder.exists()


def test_a_folder_stays_until_its_last_user_has_closed_its_lock(folder: Path) -> None:
    first, last = lock_shared(folder), lock_shared(folder)
    assert first is not None and last is not None
    os.close(first)
    delete_if_unused(folder)
    assert folder.exists()
    os.close(last)
    delete_if_unused(folder)
    assert not folder.exists()


@pytest.mark.usefixtures("replaced_before_its_lock")
def test_a_folder_that_was_made_again_meanwhile_is_not_deleted(folder: Path) -> None:
    delete_if_unused(folder)
    assert (folder / "file").exists()


@pytest.mark.usefixtures("replaced_before_its_lock")
def test_a_folder_that_was_deleted_meanwhile_is_not_locked(folder: Path) -> None:
    assert lock_shared(folder) is None


def test_a_folder_of_another_user_is_neither_locked_nor_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    delete_if_unused(folder)
    assert folder.exists() and lock_shared(folder) is None


def test_a_link_is_neither_locked_nor_deleted(folder: Path) -> None:
    link = folder.with_name("link")
    link.symlink_to(folder)
    delete_if_unused(link)
    assert (folder / "file").exists() and lock_shared(link) is None


def test_a_file_is_neither_locked_nor_deleted(folder: Path) -> None:
    delete_if_unused(folder / "file")
    assert (folder / "file").exists() and lock_shared(folder / "file") is None


def test_no_folder_with_another_beginning_of_its_name_is_deleted(folder: Path) -> None:
    other = made(folder.with_name("other"))
    delete_unused(folder.parent, "xinference-")
    assert other.exists() and not folder.exists()


def test_a_parent_that_is_missing_is_no_error(tmp_path: Path) -> None:
    delete_unused(tmp_path / "missing", "xinference-")
