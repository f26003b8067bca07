"""Frames: what is read back, and what is refused."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from xinference.fabric.fabric import MAX_MESSAGE
from xinference.fabric.frames import Answer, Call, FrameBuffer, FrameError, Table, Tell, read_frame, to_frame

DECODER = msgspec.msgpack.Decoder(Call | Tell | Table)


def _stream(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def test_messages_are_read_back_in_order() -> None:
    messages = [Call(1, "n1", b"a", 2.5), Tell("n1", b""), Table(b"x" * 100_000)]
    reader = _stream(b"".join(map(to_frame, messages)))
    assert [await read_frame(reader, DECODER) for _ in messages] == messages
    assert await read_frame(reader, DECODER) is None


async def test_the_largest_message_passes() -> None:
    message = Table(b"x" * MAX_MESSAGE)
    assert await read_frame(_stream(to_frame(message)), DECODER) == message


def test_a_larger_message_is_not_sent() -> None:
    with pytest.raises(ValueError, match="a message may have"):
        to_frame(Table(b"x" * (MAX_MESSAGE + 10_000)))


async def test_a_stream_that_ends_within_a_frame_has_ended() -> None:
    assert await read_frame(_stream(to_frame(Tell("n1", b"abc"))[:-1]), DECODER) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",  # a length over the maximum: nothing is allocated for it
        b"\x00\x00\x00\x01\xc1",  # no MessagePack
        b"\x00\x00\x00\x02\x81\xa4",  # ends early
        to_frame(Answer(1, b"")),  # a message that is not expected here
        len(unknown := msgspec.msgpack.encode({"type": "run", "code": "x"})).to_bytes(4, "big") + unknown,
        len(wrong := msgspec.msgpack.encode({"type": "tell", "node": 3, "body": b""})).to_bytes(4, "big") + wrong,
        to_frame(Tell("name", b"")).replace(b"name", b"\xff\xfe\xfd\xfc"),  # no UTF-8
        len(deep := b"\x82\xa4type\xa4tell\xa1x" + b"\x91" * 100_000).to_bytes(4, "big") + deep,
    ],
)
async def test_what_is_no_expected_message_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        await read_frame(_stream(data), DECODER)
    with pytest.raises(FrameError):
        FrameBuffer(DECODER).take(data)


@pytest.mark.parametrize("size", [1, 3, 5, 1000, 200_000])
def test_messages_that_arrive_in_pieces_of_any_size_are_complete_and_in_order(size: int) -> None:
    messages = [Call(1, "n1", b"a", 2.5), Tell("n1", b""), Table(b"x" * 10_000), Tell("n2", b"b")]
    data, frames = b"".join(map(to_frame, messages)), FrameBuffer(DECODER)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert [message for piece in pieces for message in frames.take(piece)] == messages


async def test_a_field_of_a_newer_version_is_ignored() -> None:
    body = msgspec.msgpack.encode({"type": "tell", "node": "n1", "body": b"x", "since": 3})
    assert await read_frame(_stream(len(body).to_bytes(4, "big") + body), DECODER) == Tell("n1", b"x")
