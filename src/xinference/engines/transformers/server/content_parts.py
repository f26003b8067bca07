"""The messages of a chat in the form that chat templates read, and the images in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import RefusedError

#: A message's part that stands for an image, as templates read it.
IMAGE = {"type": "image"}


@dataclass(frozen=True)
class ImagePart:
    """An image of a request: its place in the body, and its data: URL."""

    at: str
    url: str


@dataclass(frozen=True)
class PlainMessages:
    """Messages for a template; content with images is a list of parts, all other content a text."""

    messages: tuple[dict[str, Any], ...]
    images: tuple[ImagePart, ...]


def plain_messages(messages: Sequence[Mapping[str, Any]], *, with_images: bool) -> PlainMessages:
    """The messages as templates read them: text as one string, arguments of calls as objects.

    Raises:
        RefusedError: 400, which names the part that the model does not read.
    """
    images: list[ImagePart] = []
    plain = tuple(_plain(message, n, images if with_images else None) for n, message in enumerate(messages))
    return PlainMessages(plain, tuple(images))


def without_developers(messages: Sequence[Mapping[str, Any]], template: str) -> Sequence[Mapping[str, Any]]:
    """The messages with the role system in place of developer, if the template does not name that role, as on vLLM."""
    if '"developer"' in template or "'developer'" in template:
        return messages
    return [{**message, "role": "system"} if message.get("role") == "developer" else message for message in messages]


def _plain(message: Mapping[str, Any], index: int, images: list[ImagePart] | None) -> dict[str, Any]:
    at = f"messages[{index}]"
    if not isinstance(message.get("role"), str):
        raise RefusedError(f"{at}.role is required.", param=f"{at}.role")
    plain = dict(message)
    content = message.get("content")
    if isinstance(content, list):
        plain["content"] = _content(content, f"{at}.content", images)
    elif content is None:
        plain["content"] = ""
    elif not isinstance(content, str):
        raise RefusedError(f"{at}.content: text is expected.", param=f"{at}.content")
    if isinstance(message.get("tool_calls"), list):
        plain["tool_calls"] = [_with_object(call) for call in message["tool_calls"]]
    return plain


def _content(parts: list[Any], at: str, images: list[ImagePart] | None) -> str | list[dict[str, Any]]:
    before = len(images or ())
    read = [_part(part, f"{at}[{n}]", images) for n, part in enumerate(parts)]
    return read if len(images or ()) > before else "".join(part["text"] for part in read)


def _part(part: Any, at: str, images: list[ImagePart] | None) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind != "image_url" or images is None:
        accepted = "only text" if images is None else "only text and images"
        raise RefusedError(f"{at}: this model accepts {accepted}.", code="unsupported_content", param=at)
    link = part.get("image_url")
    url = link.get("url") if isinstance(link, dict) else link
    if not isinstance(url, str):
        raise RefusedError(f"{at}.image_url.url is required.", param=f"{at}.image_url.url")
    images.append(ImagePart(f"{at}.image_url", url))
    return dict(IMAGE)


def _with_object(call: Any) -> Any:
    try:
        return {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
    except (TypeError, KeyError, ValueError):
        return call
