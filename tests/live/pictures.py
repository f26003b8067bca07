"""Pictures for models that see, made where they are needed."""

from __future__ import annotations

import base64
import struct
import zlib


def png(width: int = 20, height: int = 20, colour: tuple[int, ...] = (200, 30, 30)) -> bytes:
    """A PNG of one colour (W3C's Portable Network Graphics: 8 bits, RGB or RGBA, no filter)."""
    rows = (b"\0" + bytes(colour) * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if len(colour) == 3 else 6, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def data_uri(content: bytes | None = None) -> str:
    """The same as clients send it."""
    return f"data:image/png;base64,{base64.b64encode(png() if content is None else content).decode()}"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
