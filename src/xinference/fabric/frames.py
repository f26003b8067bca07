"""Frames on a stream: four bytes of length, big-endian, and so many bytes.

The messages in them are msgspec structs with a tag. Fields that are unknown are ignored, unknown tags are refused.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Generic, TypeVar

import msgspec

from xinference.fabric.fabric import MAX_MESSAGE

log = logging.getLogger(__name__)

_LENGTH = 4
#: Bytes of a frame beside the message of a node in it.
_OVERHEAD = 4096

#: Bytes that may wait for an end that does not read; then the connection is closed, and a new one gets the state.
MAX_WAITING = 16 * 1024 * 1024

#: What a decoder raises for bytes that are no message: also text that is not UTF-8, and values nested too deeply.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class FrameError(Exception):
    """The other end sends something else than frames of the expected messages."""


class Call(msgspec.Struct, tag="call", frozen=True):
    """A question to a node."""

    number: int
    node: str
    body: bytes
    seconds: float


class Tell(msgspec.Struct, tag="tell", frozen=True):
    """A message to a node that has no answer."""

    node: str
    body: bytes


class Table(msgspec.Struct, tag="table", frozen=True):
    """The newest table of routes, for all nodes."""

    body: bytes


class Bundle(msgspec.Struct, frozen=True):
    """What is reserved on one node; see `fabric.Share`."""

    node: str
    gpus: int
    cpus: float
    memory_bytes: int


class Reserve(msgspec.Struct, tag="reserve", frozen=True):
    """A question for a reservation, which has the number of the question."""

    number: int
    bundles: list[Bundle]


class Release(msgspec.Struct, tag="release", frozen=True):
    """The end of a reservation."""

    number: int


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """The answer to the question of the same number."""

    number: int
    body: bytes = b""


class Failure(msgspec.Struct, tag="failure", frozen=True):
    """There is no answer to the question of the same number."""

    number: int
    reason: str
    """``gone``: the link is down; ``timeout``; ``refused``: by its time; ``reservation``: the cluster has less."""
    text: str = ""


class NodeEvent(msgspec.Struct, tag="event", frozen=True):
    """What a node says unasked; see `fabric.Event`."""

    node: str
    number: int
    body: bytes


class LinkChange(msgspec.Struct, tag="link", frozen=True):
    """The link to a node came up or went down."""

    node: str
    is_up: bool


def to_frame(message: Any) -> bytes:
    """One message with its length.

    Raises:
        ValueError: it is larger than a message may be.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_MESSAGE + _OVERHEAD:
        raise ValueError(f"a message may have {MAX_MESSAGE} bytes, this one has {len(body)}")
    return len(body).to_bytes(_LENGTH, "big") + body


def write_frame(writer: asyncio.StreamWriter, message: Any) -> None:
    """Send a message, unless the connection is closed; close it if its other end does not read.

    Raises:
        ValueError: the message is larger than a message may be.
    """
    if writer.is_closing():
        return
    writer.write(to_frame(message))
    if writer.transport.get_write_buffer_size() > MAX_WAITING:
        log.warning("the other end does not read; its connection is closed")
        writer.transport.abort()


async def read_frame(
    reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[T], max_bytes: int = MAX_MESSAGE + _OVERHEAD
) -> T | None:
    """The next message, of at most `max_bytes`; None at the end of the stream.

    Raises:
        FrameError: the bytes are no frame, or no message that `decoder` knows.
    """
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH), "big")
        if length > max_bytes:
            raise FrameError(f"a frame of {length} bytes")
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _decoded(decoder, body)


class FrameBuffer(Generic[T]):
    """The messages in bytes that arrive piece by piece."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T], max_bytes: int = MAX_MESSAGE + _OVERHEAD) -> None:
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._rest = bytearray()
        """The beginning of a frame that is not complete."""

    def take(self, data: bytes | bytearray) -> list[T]:
        """Add bytes; returns the messages that are complete now.

        Raises:
            FrameError: see `read_frame`.
        """
        rest = self._rest
        if rest:
            rest += data
            data = rest
        messages: list[T] = []
        start = 0
        while len(data) - start >= _LENGTH:
            body = start + _LENGTH
            length = int.from_bytes(data[start:body], "big")
            if length > self._max_bytes:
                raise FrameError(f"a frame of {length} bytes")
            if len(data) - body < length:
                break
            start = body + length
            messages.append(_decoded(self._decoder, data[body:start]))
        if data is rest:
            del rest[:start]
        else:
            rest += data[start:]
        return messages


def _decoded(decoder: msgspec.msgpack.Decoder[T], body: bytes | bytearray) -> T:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise FrameError(str(error)) from error
