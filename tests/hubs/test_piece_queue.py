"""Pieces are written and hashed in order, and an error of the disk or a stop reaches whoever receives them."""

import errno
import hashlib
import random
import threading
from pathlib import Path

import pytest

from xinference.hubs.transfer.parallel import Stopped
from xinference.hubs.transfer.partial_file import PartialFile
from xinference.hubs.transfer.piece_queue import PIECE_BYTES, PIECES, PieceQueue

DATA = random.Random(5).randbytes(PIECE_BYTES * (PIECES + 2) + 17)


def open_partial(path: Path, stop: threading.Event | None = None) -> PartialFile:
    return PartialFile(path, len(DATA), hashlib.sha256, lambda count: None, stop or threading.Event())


def append_all(pieces: PieceQueue) -> None:
    for start in range(0, len(DATA), PIECE_BYTES):
        buffer, piece = pieces.buffer(), DATA[start : start + PIECE_BYTES]
        buffer[: len(piece)] = piece
        pieces.append(buffer, len(piece))


def test_more_pieces_than_buffers_are_appended_in_order(tmp_path: Path) -> None:
    with open_partial(tmp_path / "file") as opened:
        with PieceQueue(opened) as pieces:
            append_all(pieces)
        assert opened.length == len(DATA)
        assert opened.hexdigest() == hashlib.sha256(DATA).hexdigest()
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_full_disk_ends_the_wait_for_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(piece: memoryview) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with open_partial(tmp_path / "file") as opened:
        monkeypatch.setattr(opened, "write", refuse)
        with pytest.raises(OSError, match="no space left"), PieceQueue(opened) as pieces:
            append_all(pieces)
        assert opened.length == 0


def test_a_full_disk_is_raised_in_place_of_the_error_of_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(piece: memoryview) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with open_partial(tmp_path / "file") as opened:
        monkeypatch.setattr(opened, "write", refuse)
        with pytest.raises(OSError, match="no space left"), PieceQueue(opened) as pieces:
            pieces.append(pieces.buffer(), 10)
            raise EOFError


def test_a_stopped_transfer_ends_the_wait_for_a_buffer(tmp_path: Path) -> None:
    stop = threading.Event()
    with open_partial(tmp_path / "file", stop) as opened, pytest.raises(Stopped), PieceQueue(opened) as pieces:
        stop.set()
        append_all(pieces)
