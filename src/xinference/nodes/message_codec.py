"""Encodes and decodes the messages between the server and a node."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.nodes import messages


def encode(message: messages.Message | messages.Envelope) -> bytes:
    """The bytes of a message."""
    return _ENCODER.encode(message)


def decode_envelope(data: bytes) -> messages.Envelope:
    """A message of the server.

    Raises:
        Problem: 502 ``node_message_refused``.
    """
    return _decode(_ENVELOPES, data)


def decode_answer(data: bytes) -> messages.Answer:
    """An answer of a node.

    Raises:
        Problem: as `decode_envelope`.
    """
    return _decode(_ANSWERS, data)


def decode_event(data: bytes) -> messages.ReceivedEvent:
    """An event of a node.

    Raises:
        Problem: as `decode_envelope`.
    """
    return _decode(_EVENTS, data)


def decode_host(report: messages.HostReport) -> Host:
    """The resources in a report.

    Raises:
        Problem: as `decode_envelope`.
    """
    return _decode(_HOSTS, bytes(report.host))


Decoded = TypeVar("Decoded")


def _decode(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes) -> Decoded:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise Problem(
            Code.NODE_MESSAGE_REFUSED,
            f"A message between the server and a node cannot be read: {error}.",
            hint="Install the same version of Xinference on both.",
        ) from None


def _to_builtin(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _from_builtin(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_builtin)
_ENVELOPES = msgspec.msgpack.Decoder(messages.Envelope, dec_hook=_from_builtin)
_ANSWERS: msgspec.msgpack.Decoder[messages.Answer] = msgspec.msgpack.Decoder(messages.Answer, dec_hook=_from_builtin)
_EVENTS: msgspec.msgpack.Decoder[messages.ReceivedEvent] = msgspec.msgpack.Decoder(
    messages.ReceivedEvent, dec_hook=_from_builtin
)
_HOSTS = msgspec.msgpack.Decoder(Host, dec_hook=_from_builtin)
