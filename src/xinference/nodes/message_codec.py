"""Encodes and decodes the messages between the server and a node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TypeVar

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.fabric.frames import UNREADABLE
from xinference.hardware.devices import Gpu, Host
from xinference.nodes import messages

#: No figure in a message is larger: bytes, tokens, times.
MAX_FIGURE = 1 << 60


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
    return _with_figures(_decode(_ANSWERS, data))


def decode_event(data: bytes) -> messages.ReceivedEvent:
    """An event of a node.

    Raises:
        Problem: as `decode_envelope`.
    """
    event = _decode(_EVENTS, data)
    # `decode_host` checks a host, and `CountedRecords` a record: both are frequent.
    return event if isinstance(event, messages.HostReport | messages.Served) else _with_figures(event)


def decode_host(report: messages.HostReport) -> Host:
    """The resources in a report.

    Raises:
        Problem: as `decode_envelope`.
    """
    host = _with_figures(_decode(_HOSTS, bytes(report.host)))
    sizes = (host.memory_total, host.memory_available, *(size for gpu in host.gpus for size in _gpu_sizes(gpu)))
    names = (host.cpu_name, *(name for gpu in host.gpus for name in (gpu.name, gpu.uuid)))
    if host.physical_cores < 1 or min(sizes) < 0 or not all(map(str.isprintable, names)):
        raise _unreadable("HostIs has a negative size, no core, or a name that cannot be printed")
    return host


def _gpu_sizes(gpu: Gpu) -> tuple[int, int, int]:
    return gpu.index, gpu.memory_total, gpu.memory_free


Decoded = TypeVar("Decoded")


def _decode(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes) -> Decoded:
    try:
        return decoder.decode(data)
    except (*UNREADABLE, ValueError, TypeError) as error:
        raise _unreadable(str(error)) from None


def _with_figures(message: Decoded) -> Decoded:
    """A message whose numbers are figures: NaN and 2**64 - 1 would end what calculates with them, much later."""
    try:
        found = _no_figure(message)
    except RecursionError:
        raise _unreadable(f"{type(message).__name__} is nested too deeply") from None
    if found is not None:
        raise _unreadable(f"{type(message).__name__} has the number {found!r}")
    return message


def _no_figure(value: object) -> int | float | None:
    """The first number in a message that is none, or is too large; None: all are figures."""
    if isinstance(value, float | int):
        return None if math.isfinite(value) and -MAX_FIGURE < value < MAX_FIGURE else value
    return next((found for each in _parts(value) if (found := _no_figure(each)) is not None), None)


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, msgspec.Struct):
        return (getattr(value, name) for name in value.__struct_fields__)
    if dataclasses.is_dataclass(value):
        return (getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple | Set) else ()


def _unreadable(cause: str) -> Problem:
    return Problem(
        Code.NODE_MESSAGE_REFUSED,
        f"A message between the server and a node cannot be read: {cause}.",
        hint="Install the same version of Xinference on both.",
    )


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
