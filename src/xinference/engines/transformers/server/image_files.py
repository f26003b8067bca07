"""Decodes the images of a request: PNG, JPEG, WebP, and the first frame of a GIF, within limits."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from .content_parts import ImagePart
from .errors import RefusedError
from .image_limits import MAX_FILE, MAX_IMAGES, MAX_PIXELS, MAX_RATIO, MAX_SIDE

#: Pillow's decoders that read images of clients.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
#: A common name that is not registered.
_ALIASES = {"image/jpg": "image/jpeg"}


def decode_images(parts: Sequence[ImagePart]) -> list[Any]:
    """The images as RGB, upright.

    Raises:
        RefusedError: 400, which names the part and its fault.
    """
    if len(parts) > MAX_IMAGES:
        at = parts[MAX_IMAGES].at
        raise _refused(at, f"a request has at most {MAX_IMAGES} images, and this one has {len(parts)}")
    opened = [_open(part) for part in parts]
    pixels = 0
    for part, image in zip(parts, opened, strict=True):
        width, height = image.size
        pixels += width * height
        if max(width, height) > MAX_SIDE:
            raise _refused(part.at, f"a side of {max(width, height)} pixels is longer than {MAX_SIDE}")
        if max(width, height) > MAX_RATIO * min(width, height):
            cause = f"of {width} x {height} pixels, one side is more than {MAX_RATIO} times as long as the other"
            raise _refused(part.at, cause)
        if pixels > MAX_PIXELS:
            cause = f"{width} x {height} pixels are too many: all images of a request have at most {MAX_PIXELS}"
            raise _refused(part.at, cause)
    # Each is taken from the list, which would keep its pixels in their first form.
    return [_decode(part, opened.pop(0)) for part in parts]


def _open(part: ImagePart) -> Any:
    """An image of which only the header is read."""
    data = _content(part)
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise _refused(part.at, f"it has more than {MAX_PIXELS} pixels") from None
    except Exception:  # noqa: BLE001 -- decoders raise errors of many kinds for a damaged header
        raise _refused(part.at, "the data is not a PNG, JPEG, WebP or GIF image") from None


def _decode(part: ImagePart, image: Any) -> Any:
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.has_transparency_data:
            return _on_white(image if image.mode == "RGBA" else image.convert("RGBA"))
        return image.convert("RGB")  # also of RGB: an opened image keeps its decoder, which is large for WebP
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- decoders raise errors of many kinds for a damaged body
        raise _refused(part.at, f"the image is damaged or truncated ({error})") from None


def _on_white(image: Any) -> Any:
    """An image with transparency on a white background, as transformers converts it to RGB."""
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _content(part: ImagePart) -> bytes:
    """The bytes in a data: URL (RFC 2397) with base64."""
    scheme, _, rest = part.url.partition(":")
    if scheme.lower() != "data":
        raise _refused(part.at, "a data: URL is expected")
    head, comma, payload = rest.partition(",")
    media_type, *parameters = (word.strip().lower() for word in head.split(";"))
    if not comma or "base64" not in parameters:
        raise _refused(part.at, "a data: URL with base64 is expected")
    if _ALIASES.get(media_type, media_type) not in MEDIA_TYPES:
        raise _refused(part.at, f"the media type {media_type[:80]!r} is not one of {', '.join(MEDIA_TYPES)}")
    if len(payload) > MAX_FILE * 4 // 3 + 4:
        raise _refused(part.at, f"the file has more than {MAX_FILE // 1024**2} MiB")
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise _refused(part.at, "the data is not base64") from None
    if not data:
        raise _refused(part.at, "the image has no data")
    return data


def _refused(at: str, cause: str) -> RefusedError:
    return RefusedError(f"{at}: {cause}.", code="invalid_media", param=at)
