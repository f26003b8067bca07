"""The limits of the images of one request. This module imports nothing: planning reads it, too."""

from __future__ import annotations

MAX_IMAGES = 16
#: Bytes of one file.
MAX_FILE = 32 * 1024**2
#: Pixels of all images of a request.
MAX_PIXELS = 64_000_000
#: The most bytes of a pixel, measured with one image of 16 million pixels as PNG, JPEG, GIF and WebP with transparency:
#: 8 of the decoder of WebP, 4 of its image, 5 of the image on white. Of an image without it: 14, of which 10 are copies
#: that transformers makes.
DECODED_BYTES = 17
#: The longest side in pixels; Pillow writes no JPEG with a longer one.
MAX_SIDE = 65_535
#: The longer side as a multiple of the shorter one, as of Qwen2-VL: LLaVA's processor enlarges the shorter one to 336
#: pixels before it cuts the image, so a line of 65,535 pixels would become one of 7 billion.
MAX_RATIO = 200
#: Tokens of all images of a prompt, which the vision tower computes together; the most that Qwen2-VL makes of one.
MAX_TOKENS = 16384
