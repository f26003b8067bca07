from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from xinference.files import atomic_file
from xinference.files.durability import is_intact, marker_path, start_sync, write_marker


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"new")
    return file


def write(path: Path, content: bytes, *, keep_existing: bool = True) -> bool:
    """Whether the file was written, and not taken as it is."""
    with atomic_file.atomic_write(path, threading.Event(), keep_existing=keep_existing, sync="after") as out:
        if out is not None:
            out.write(content)
        return out is not None


def test_a_file_without_a_mark_is_believed_and_one_that_is_not_there_is_not(path: Path) -> None:
    assert is_intact(path)
    assert not is_intact(path.with_name("other.gguf"))


def test_a_marked_file_is_believed_until_the_machine_starts_anew(path: Path) -> None:
    write_marker(path)
    assert is_intact(path)
    marker_path(path).write_text("another boot")
    assert not is_intact(path)


def test_the_mark_goes_when_the_disk_has_the_file(path: Path) -> None:
    write_marker(path)
    thread = start_sync(path)
    assert thread is not None
    thread.join(30)
    assert os.listdir(path.parent) == [path.name]
    assert start_sync(path) is None


def test_a_file_that_is_deleted_meanwhile_leaves_no_mark(path: Path) -> None:
    write_marker(path)
    path.unlink()
    thread = start_sync(path)
    assert thread is not None
    thread.join(30)
    assert os.listdir(path.parent) == []


def test_a_disk_that_fails_leaves_the_mark(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_marker(path)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    thread = start_sync(path)
    assert thread is not None
    thread.join(30)
    assert marker_path(path).exists()


def test_a_writer_takes_what_is_believed_and_syncs_it_if_its_maker_did_not(path: Path) -> None:
    write_marker(path)
    assert not write(path, b"again")
    for thread in threading.enumerate():
        if thread.name == f"sync {path.name}":
            thread.join(30)
    assert path.read_bytes() == b"new" and not marker_path(path).exists()


def test_what_a_power_cut_may_have_harmed_is_written_anew(path: Path) -> None:
    marker_path(path).write_text("another boot")
    assert write(path, b"again")
    assert path.read_bytes() == b"again" and is_intact(path)


def test_a_writer_that_fails_does_not_vouch_for_what_was_there(path: Path) -> None:
    marker_path(path).write_text("another boot")
    with (
        pytest.raises(RuntimeError),
        atomic_file.atomic_write(path, threading.Event(), keep_existing=True, sync="after"),
    ):
        raise RuntimeError
    assert not is_intact(path) and os.listdir(path.parent) == []
