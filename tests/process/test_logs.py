"""The bounded log."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from xinference.process.logs import MAX_LINE, BoundedLog, read_tail


def test_lines_cut_anywhere_come_out_whole(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 1 << 20)
    for byte in "one\ntwo ü\nthr".encode():
        log.feed(bytes([byte]))
    assert log.tail() == ("one", "two ü", "thr")
    log.close()
    assert (tmp_path / "log").read_text() == "one\ntwo ü\nthr\n"


def test_the_tail_is_the_last_forty_lines(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 1 << 20)
    log.feed(b"".join(b"%d\n" % number for number in range(100)))
    assert log.tail() == tuple(str(number) for number in range(60, 100))
    assert read_tail(tmp_path / "log") == log.tail()


def test_an_overlong_line_is_cut_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 1 << 20)
    for _ in range(1000):
        log.feed(b"x" * 1000)
    log.feed(b"\nnext\n")
    assert log.tail() == ("x" * MAX_LINE, "next")


def test_a_progress_bar_leaves_its_last_state(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 1 << 20)
    log.feed(b"loading 1%\rloading 50%\r")
    log.feed(b"loading 100%\r\ndone\r\n")
    assert log.tail() == ("loading 100%", "done")


def test_the_files_never_grow_beyond_the_bound(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 32 * 1024)
    for number in range(5000):
        log.feed(b"line %d\n" % number)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 32 * 1024
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]


def test_an_earlier_log_is_continued(tmp_path: Path) -> None:
    for text in (b"first\n", b"second\n"):
        log = BoundedLog(tmp_path / "log", 1 << 20)
        log.feed(text)
        log.close()
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_a_full_disk_costs_lines_and_says_how_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = BoundedLog(tmp_path / "log", 1 << 20)
    log.feed(b"before\n")

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        log.feed(b"lost\nlost too\n")
    log.feed(b"after\n")
    assert log.tail() == ("before", "lost", "lost too", "after")
    assert (tmp_path / "log").read_text() == "before\n[2 lines could not be written]\nafter\n"


def test_a_folder_that_vanishes_hurts_nobody(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "missing" / "log", 1 << 20)
    log.feed(b"one\n")
    assert log.tail() == ("one",)
    assert read_tail(tmp_path / "missing" / "log") == ()
