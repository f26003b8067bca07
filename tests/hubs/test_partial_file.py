"""The bytes of an earlier run count as done from the first report on."""

import errno
import hashlib
import threading
from pathlib import Path

import pytest

from xinference.hubs.transfer import flusher
from xinference.hubs.transfer.partial_file import WRITE_BYTES, PartialFile


def open_partial(path: Path, size: int, reports: list[int]) -> PartialFile:
    return PartialFile(path, size, hashlib.sha256, reports.append, threading.Event())


def test_kept_bytes_are_one_report_before_the_transferred_ones(tmp_path: Path) -> None:
    path = tmp_path / "weights.partial"
    path.write_bytes(b"k" * (5 << 20))
    reports: list[int] = []
    with open_partial(path, 6 << 20, reports) as file:
        file.append(b"n" * 10)
    assert reports == [5 << 20, 10]
    assert file.hexdigest() == hashlib.sha256(b"k" * (5 << 20) + b"n" * 10).hexdigest()


def test_kept_bytes_beyond_the_size_are_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "weights.partial"
    path.write_bytes(b"k" * 9)
    reports: list[int] = []
    with open_partial(path, 4, reports) as file:
        assert file.length == 0
    assert reports == [9, -9]


def test_a_chunk_is_written_whole_in_calls_of_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.partial"
    data = bytes(range(256)) * 1024
    lengths: list[int] = []

    class Disk:
        """Writes at most 1,000 bytes at a time, as a file may."""

        def write(self, chunk: memoryview) -> int:
            lengths.append(len(chunk))
            return real.write(chunk[:1000])

    with open_partial(path, len(data), []) as file:
        real = file._file
        monkeypatch.setattr(file, "_file", Disk())
        file.append(data)
        monkeypatch.undo()
        assert file.length == len(data)
    assert path.read_bytes() == data and max(lengths) == WRITE_BYTES


def test_the_disk_writes_while_more_is_transferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = threading.Event()
    monkeypatch.setattr(flusher, "FLUSH_BYTES", 100)
    monkeypatch.setattr(flusher, "_flush", lambda descriptor: flushed.set())
    with open_partial(tmp_path / "weights.partial", 1000, []) as file:
        file.append(b"n" * 100)
        assert flushed.wait(10)
        file.append(b"n" * 10)


def test_an_error_of_the_disk_ends_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(flusher, "FLUSH_BYTES", 100)
    monkeypatch.setattr(flusher, "_flush", fail)
    with (
        pytest.raises(OSError, match="the disk is broken"),
        open_partial(tmp_path / "weights.partial", 1000, []) as file,
    ):
        file.append(b"n" * 100)
