"""Finds the images of a request that are named by an address, and replaces each by the image itself."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xinference.gateway.media.image_fetcher import Image
from xinference.protocol.addresses import ADDRESS

#: The fields of a body with messages.
_ROOTS = ("messages", "input", "system")
#: The fields of a message, of a tool's result or of an item with parts.
_CONTENTS = ("content", "output")
#: The types of the parts that are images.
_IMAGES = frozenset({"image_url", "input_image", "image"})

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImagePlace:
    """One image of a decoded body, by the object that has its address."""

    holder: Body
    name: str
    """The field of `holder`."""
    path: str
    """The place in the body, such as ``messages[0].content[1].image_url.url``."""
    is_source: bool
    """`holder` is the source of an image in Anthropic's form."""

    @property
    def address(self) -> str:
        address: str = self.holder[self.name]
        return address

    def put(self, image: Image) -> None:
        """Replace the address by the image."""
        content = base64.b64encode(image.content).decode("ascii")
        if self.is_source:
            del self.holder[self.name]
            self.holder.update({"type": "base64", "media_type": image.type, "data": content})
        else:
            self.holder[self.name] = f"data:{image.type};base64,{content}"


def image_places(body: Body) -> list[ImagePlace]:
    """The images of a body that are named by an address of any kind, in the order of the body."""
    return [place for root in _ROOTS for place in _places(body.get(root), root)]


def _places(value: Any, path: str) -> Iterator[ImagePlace]:
    if isinstance(value, list):
        for n, inner in enumerate(value):
            if isinstance(inner, dict):
                yield from _places(inner, f"{path}[{n}]")
    elif isinstance(value, dict):
        if value.get("type") in _IMAGES:
            yield from _places_of_part(value, path)
        for name in _CONTENTS:
            yield from _places(value.get(name), f"{path}.{name}")


def _places_of_part(part: Body, path: str) -> Iterator[ImagePlace]:
    link, source = part.get("image_url"), part.get("source")
    for holder, name, inner, is_source in (
        (part, "image_url", path, False),
        (part, "image", path, False),
        (link, "url", f"{path}.image_url", False),
        (source, "url", f"{path}.source", True),
    ):
        if isinstance(holder, dict):
            address = holder.get(name)
            if isinstance(address, str) and ADDRESS.match(address):
                yield ImagePlace(holder, name, f"{inner}.{name}", is_source)
