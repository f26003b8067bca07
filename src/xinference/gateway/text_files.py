"""The files of OpenAI's API as texts, which every engine reads: a part of a chat, or of a response's input."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from xinference.engines.dialect import Body
from xinference.error_codes import Code
from xinference.gateway.canonical_fields import invalid, required, unsupported
from xinference.protocol.errors import Refusal

#: The types of parts with a file -> the member with the file; None: the part itself.
FILES = {"file": "file", "input_file": None}
#: Media types of texts, in addition to those that begin with ``text/``.
_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
_CHARSETS = ("utf-8", "utf8", "us-ascii")
HINT = "Send a text as data:text/plain;base64,…"


def as_text(part: Body, at: str) -> str:
    """The text of a part with a file, after the file's name.

    Raises:
        Refusal: 400, there is no file in the part, or it is no text.
    """
    member = FILES[part["type"]]
    file = part if member is None else part.get(member)
    at = at if member is None else f"{at}.{member}"
    if not isinstance(file, dict):
        raise required(at)
    data, name = file.get("file_data"), file.get("filename")
    if data is None:
        for other in ("file_id", "file_url"):
            if file.get(other) is not None:
                raise unsupported(f"{at}.{other}", "files are not kept or fetched here.", "Send the file in file_data.")
        raise required(f"{at}.file_data")
    if not isinstance(data, str):
        raise invalid(f"{at}.file_data", "it is a text with a data: URI.")
    text = _decoded(data, f"{at}.file_data")
    return f"{name}\n\n{text}" if isinstance(name, str) and name else text


def _decoded(uri: str, at: str) -> str:
    head, comma, data = uri.partition(",")
    scheme, colon, described = head.partition(":")
    if not comma or not colon or scheme.lower() != "data":
        raise Refusal(Code.UNSUPPORTED_CONTENT, f"{at}: the file has no media type.", hint=HINT, param=at)
    kind, *parameters = (word.strip().lower() for word in described.split(";"))
    if kind and not kind.startswith("text/") and kind not in _TEXTS:
        cause = f"{at}: a file of the type {kind[:100]} is not taken here."
        raise Refusal(Code.UNSUPPORTED_CONTENT, cause, hint=HINT, param=at)
    charset = next((word.partition("=")[2].strip('"') for word in parameters if word.startswith("charset=")), "utf-8")
    if charset not in _CHARSETS:
        raise invalid(at, f"the charset {charset[:100]!r} is not taken here, expected utf-8.")
    try:
        content = base64.b64decode(data, validate=True) if "base64" in parameters else unquote_to_bytes(data)
    except (binascii.Error, ValueError):
        raise invalid(at, "the data after the comma is not base64.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(at, f"the file is not UTF-8: byte 0x{content[error.start]:02x} at byte {error.start}.") from None
