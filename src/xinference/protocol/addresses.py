"""Refuses a request that contains the address of media in any field of its body.

An engine would fetch the address from this machine's network. The fields with media differ between engines and their
versions, so there is no list of them: every string inside a field with a name of media is checked. A body whose bytes
cannot contain an address is not decoded for this check. `gateway.media` replaces the addresses that are allowed.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.protocol.errors import Refusal

#: Fields whose values engines read as media or as its address, in addition to fields whose names end with `ENDS`.
MEDIA_FIELDS = frozenset(
    {
        "url", "urls", "uri", "uris", "href", "data", "source", "image", "images", "video", "videos", "audio", "audios",
        "file", "files", "media", "input_image", "input_audio", "input_video", "input_file", "image_data",
        "audio_data", "video_data", "file_data", "multi_modal_data", "mm_data",
    }
)  # fmt: skip
ENDS = ("_url", "_urls", "_uri", "_uris")
#: A scheme, or the slashes before a host. A ``data:`` URI does not match: it contains the media itself.
ADDRESS = re.compile(
    r"[\x00-\x20]*(?:(?:[a-z][a-z0-9+.-]*:)?[/\\]{2}|(?:https?|ftps?|file|s3|gs|unix):)", re.IGNORECASE
)
#: Fields of the body with schemas or labels: engines read no media from them, and addresses are common in them.
_LABELS = (
    "metadata",
    "mcp_servers",
    "response_format",
    "guided_json",
    "json_schema",
    "structured_outputs",
    "output_format",
    "output_config",
)
_TOOL_SCHEMAS = ("parameters", "input_schema", "input_examples")

Place = tuple["Place | None", str | int]


def may_contain_address(body: bytes) -> bool:
    """Whether the bytes can contain a slash or two backslashes of an address; JSON may write them with backslashes.

    An address like ``http:host`` is not seen: no engine fetches it. In the parts that are media by their form, the
    gateway refuses it.
    """
    if b":/" in body or b"//" in body:
        return True
    if b"\\" not in body:
        return False
    return b"\\/" in body or b"\\u00" in body or b"\\\\\\\\" in body or b"/\\\\" in body


def refuse_addresses(body: bytes) -> None:
    """Refuse a body with an address inside a field of media.

    Args:
        body: valid JSON, an object.

    Raises:
        Refusal: 400, with the path of the field.
    """
    root: dict[str, Any] = msgspec.json.decode(body)
    _drop_schemas(root)
    pending: list[tuple[Any, Place | None, bool]] = [(root, None, False)]
    while pending:
        value, place, is_media = pending.pop()
        if isinstance(value, dict):
            unread = _unread_field(value) if place is not None else None
            for name, inner in value.items():
                if name != unread:
                    pending.append((inner, (place, name), is_media or is_media_field(name)))
        elif isinstance(value, list):
            pending += [(inner, (place, n), is_media) for n, inner in enumerate(value)]
        elif is_media and isinstance(value, str) and ADDRESS.match(value):
            raise address_refusal(_path(place))


def is_media_field(name: str) -> bool:
    """Whether engines read the value of a field with this name as media."""
    name = name.lower()
    return name in MEDIA_FIELDS or name.endswith(ENDS)


def address_refusal(path: str) -> Refusal:
    """The refusal of the address at `path`."""
    cause = f"{path}: media must be a data: URI; addresses are not fetched."
    return Refusal(Code.MEDIA_ADDRESS, cause, param=path)


def _drop_schemas(root: dict[str, Any]) -> None:
    """Remove the schemas of the answer and of the tools, and the labels of the request."""
    for name in _LABELS:
        root.pop(name, None)
    text = root.get("text")
    if isinstance(text, dict) and isinstance(text.get("format"), dict):
        text["format"].pop("schema", None)
    for group in ("tools", "functions"):
        for tool in root[group] if isinstance(root.get(group), list) else ():
            for described in (tool, tool.get("function")) if isinstance(tool, dict) else ():
                if isinstance(described, dict):
                    for name in _TOOL_SCHEMAS:
                        described.pop(name, None)


def _unread_field(part: dict[str, Any]) -> str | None:
    """The field of a part that engines read as text: a call's arguments, a text, or the sources of an answer."""
    kind, source = part.get("type"), part.get("source")
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return "source"
    if kind == "search_result" and isinstance(source, str):
        return "source"
    if kind == "tool_use" and isinstance(part.get("input"), dict):
        return "input"
    return "annotations" if kind == "output_text" else None


def _path(place: Place | None) -> str:
    steps: list[str | int] = []
    while place is not None:
        place, step = place
        steps.append(step)
    steps.reverse()
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
