"""Places in a log, which stay valid while the log grows and is rotated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xinference.log_position import LogPosition
from xinference.process.log_reader import has_more, read_from, read_last_lines
from xinference.process.logs import MAX_LINE, BoundedLog


def test_a_place_is_a_text() -> None:
    for place in (LogPosition("r0000000001.5f3a", 17), LogPosition("", 0)):
        assert LogPosition.parse(str(place)) == place
    for text in ("", "-", "-1", "x", "r-", "r-x", "a/b-1", "../x-1", "1" * 16, "r 1-2", "\u0663"):
        assert LogPosition.parse(text) is None, text


def test_the_last_lines_have_the_place_of_their_end(tmp_path: Path) -> None:
    path = tmp_path / "r1.log"
    assert read_last_lines(path, 5).data == b"" and not has_more(path, LogPosition("", 0))
    path.write_bytes(b"one\ntwo\nthr")
    piece = read_last_lines(path, 2)
    assert piece.data == b"two\nthr" and read_from(path, piece.end.before(len(piece.data))).data == piece.data
    assert not has_more(path, piece.end) and read_from(path, piece.end).data == b""
    path.write_bytes(b"one\ntwo\nthree\n")
    assert has_more(path, piece.end) and read_from(path, piece.end).data == b"ee\n"


def test_a_place_of_a_file_that_is_gone_begins_with_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / "r1.log"
    path.write_bytes(b"new\n")
    path.with_name("r1.log.1").write_bytes(b"old\n")
    assert read_from(path, LogPosition("r0.123", 77)).data == b"old\nnew\n"
    assert read_from(path, LogPosition("", 0)).data == b"new\n", "a number is a place in the file of now"
    assert read_from(path, LogPosition("", 99)).data == b"new\n"


@given(st.data())
def test_reading_on_loses_and_repeats_nothing_over_a_rotation(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "r1.log"
    log = BoundedLog(path, 4 * MAX_LINE)  # a file has two of the longest lines
    written = received = b""
    place = LogPosition("", 0)
    for number in range(data.draw(st.integers(1, 12))):
        line = b"%d " % number + b"x" * data.draw(st.integers(0, MAX_LINE - 10)) + b"\n"
        log.feed(line)
        written += line
        if data.draw(st.booleans()) or number % 2:  # at most one rotation between two readings
            begin, size = place, len(received)
            limit = data.draw(st.integers(1, 3 * MAX_LINE))
            while (piece := read_from(path, place, limit)).data:
                assert len(piece.data) <= limit
                received, place = received + piece.data, piece.end
            # A program that counts the bytes comes to the same place, also if the file was rotated meanwhile.
            counted = LogPosition(begin.file, begin.offset + len(received) - size)
            assert not begin.file or read_from(path, counted).end == place
    while (piece := read_from(path, place)).data:
        received, place = received + piece.data, piece.end
    assert received == written
    log.close()
