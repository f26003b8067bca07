"""Recognises images by their first bytes."""

from __future__ import annotations

#: The first bytes of each type of image that an engine here reads.
_FIRST_BYTES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)
NAMES = "PNG, JPEG, GIF, WebP, BMP"


def image_type(content: bytes) -> str | None:
    """The media type of an image; None if the bytes are no image of a known type."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for first, kind in _FIRST_BYTES if content.startswith(first)), None)
