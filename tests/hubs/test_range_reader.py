"""A header on a hub is read in growing pieces, within bounded bytes."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader

import httpx2
import pytest

from xinference.errors import Problem
from xinference.hubs.transfer import range_reader
from xinference.hubs.transfer.range_reader import FIRST_BYTES, LARGEST_BYTES, MAX_BYTES, HeaderFile, fetch_range


class Served:
    """A file of zeros that counts what is fetched."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int]] = []

    def __call__(self, start: int, count: int) -> bytes:
        self.pieces.append((start, count))
        return bytes(count)


def test_the_pieces_follow_each_other_and_double() -> None:
    served = Served()
    file = HeaderFile(1 << 40, served)
    for _ in range(3):
        file.read(FIRST_BYTES * 4)
        file.seek(file.tell())
    assert served.pieces[:2] == [(0, FIRST_BYTES), (FIRST_BYTES, 2 * FIRST_BYTES)]
    assert max(count for _, count in served.pieces) <= LARGEST_BYTES


def test_a_small_header_is_one_piece_and_is_not_fetched_twice() -> None:
    served = Served()
    file = BufferedReader(HeaderFile(1 << 40, served))
    for _ in range(4):
        file.seek(0)
        assert file.read(512) == bytes(512)
    assert served.pieces == [(0, FIRST_BYTES)]


def test_a_file_ends_at_its_size() -> None:
    served = Served()
    assert len(BufferedReader(HeaderFile(1000, served)).read()) == 1000
    assert served.pieces == [(0, 1000)]


def test_a_header_without_an_end_is_refused_within_the_limit() -> None:
    served = Served()
    file = BufferedReader(HeaderFile(1 << 40, served))
    with pytest.raises(Problem) as caught:
        while file.read(1 << 20):
            pass
    assert caught.value.code == "bad_weight_file"
    assert sum(count for _, count in served.pieces) <= MAX_BYTES


def test_a_position_far_from_the_start_is_no_header() -> None:
    served = Served()
    file = HeaderFile(1 << 40, served)
    file.seek(1 << 39)
    with pytest.raises(Problem):
        file.read(1)
    assert served.pieces == []


@pytest.mark.parametrize("start", [0, 100])
def test_a_server_that_ignores_ranges_sends_no_more_than_what_is_read(start: int) -> None:
    sent: list[int] = []

    def stream() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(1 << 16)
            yield bytes(range(256)) * 256

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=stream()))
    with httpx2.Client(transport=transport) as client:
        data = fetch_range(client, "http://hub/f", {}, start, 10, lambda response: None)
    assert data == bytes(range(start, start + 10)) and len(sent) < 3


def test_a_server_that_ignores_a_high_range_is_refused() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=b"x"))
    with httpx2.Client(transport=transport) as client, pytest.raises(httpx2.HTTPError, match="whole files"):
        fetch_range(client, "http://hub/f", {}, range_reader.MAX_SKIPPED_BYTES + 1, 10, lambda response: None)
