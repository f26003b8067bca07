"""Decodes compressed request bodies. Agents send them: Claude Code with gzip, Codex with zstd.

A few bytes can decode to gigabytes, so each decoder stops at the limit of a body.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from xinference.error_codes import Code
from xinference.gateway.http.request_body import body_too_large
from xinference.protocol.errors import Refusal

#: Windows by which zlib reads a body: with the head of gzip or of zlib, or without one.
GZIP, ZLIB, RAW = 31, 15, -15
#: The first bytes of a member of gzip.
MEMBER = b"\x1f\x8b"
#: Each member copies the rest of the body.
MAX_MEMBERS = 16
#: The largest window of zstd, as a power of two: 8 MiB, the most that RFC 9659 allows for a content encoding.
WINDOW_LOG = 23
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"

_Decode = Callable[[bytes, int], bytes]


class _UndecodableError(Exception):
    """The bytes are not of their encoding."""


def decompressed(body: bytes, headers: dict[bytes, bytes], limit: int) -> bytes:
    """The body without its content encoding, at most `limit` bytes.

    Raises:
        Refusal: 415 for an encoding that is not decoded here, 413 for a larger body, 400 for bytes that are not of it.
    """
    encoding = headers[b"content-encoding"].strip().lower()
    if encoding in (b"identity", b""):
        return body
    decode = DECODERS.get(encoding)
    if decode is None:
        raise _unknown(encoding)
    try:
        plain = decode(body, limit + 1)
    except _UndecodableError as error:
        raise Refusal(Code.INVALID_REQUEST, f"The body is not {encoding.decode()}: {error}.") from None
    if len(plain) > limit:
        raise body_too_large(headers, limit, "larger once it is decoded")
    return plain


def _gzip(body: bytes, maximum: int) -> bytes:
    """The members of the body, one after the other (RFC 1952, section 2.2)."""
    plain = b""
    for _ in range(MAX_MEMBERS):
        decoder = zlib.decompressobj(GZIP)
        try:
            plain += decoder.decompress(body, maximum - len(plain))
        except zlib.error as error:
            raise _UndecodableError(error) from None
        if len(plain) >= maximum or not decoder.eof or not decoder.unused_data.startswith(MEMBER):
            return _complete(decoder, plain, maximum)
        body = decoder.unused_data
    raise _UndecodableError(f"it has more than {MAX_MEMBERS} members")


def _zlib(body: bytes, maximum: int, window: int) -> bytes:
    decoder = zlib.decompressobj(window)
    try:
        plain = decoder.decompress(body, maximum)
    except zlib.error as error:
        raise _UndecodableError(error) from None
    return _complete(decoder, plain, maximum)


def _deflate(body: bytes, maximum: int) -> bytes:
    """Also without zlib's head, as some clients send it (RFC 9110, section 8.4.1.2)."""
    has_head = len(body) > 1 and body[0] & 15 == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0
    return _zlib(body, maximum, ZLIB if has_head else RAW)


def _zstd(body: bytes, maximum: int) -> bytes:
    library = import_module(_ZSTD)  # not at the start: few clients send it
    options = {library.DecompressionParameter.window_log_max: WINDOW_LOG}
    decoder = library.ZstdDecompressor(options=options)
    try:
        plain: bytes = decoder.decompress(body, maximum)
    except library.ZstdError as error:
        raise _UndecodableError(error) from None
    return _complete(decoder, plain, maximum)


def _complete(decoder: Any, plain: bytes, maximum: int) -> bytes:
    """Check that the body has been one piece of its encoding, unless the decoder has stopped at the maximum."""
    if len(plain) < maximum and (not decoder.eof or decoder.unused_data):
        raise _UndecodableError("it is incomplete, or other bytes follow it")
    return plain


#: By the name of the encoding in `Content-Encoding`.
DECODERS: dict[bytes, _Decode] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"zstd": _zstd,
}


def _unknown(encoding: bytes) -> Refusal:
    shown = encoding[:40].decode("latin-1")
    return Refusal(
        Code.UNSUPPORTED_MEDIA_TYPE,
        f"The content encoding {shown!r} is not supported.",
        hint="Send the body with gzip, deflate or zstd, or without an encoding.",
        headers=((b"accept-encoding", b"gzip, deflate, zstd"),),  # RFC 7694
    )
