"""The limits of the images of one request. This module imports nothing: planning reads it, too."""

from __future__ import annotations

MAX_IMAGES = 16
#: Bytes of one file.
MAX_FILE = 32 * 1024**2
#: Pixels of all images of a request.
MAX_PIXELS = 64_000_000
#: The most bytes of a decoded pixel: 3 of the image, and 4 while it is decoded.
DECODED_BYTES = 7
#: The longest side in pixels; Pillow writes no JPEG with a longer one.
MAX_SIDE = 65_535
#: Tokens of all images of a prompt, which the vision tower computes together; the most that Qwen2-VL makes of one.
MAX_TOKENS = 16384
