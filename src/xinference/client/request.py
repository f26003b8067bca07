"""A request as a value: what is sent, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from xinference.client.answers import Decoder, Json

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Request(Generic[T]):
    """One request whose answer is read as a whole."""

    method: str = "GET"
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    patient: bool = False
    """The answer may take as long as it takes: a model loads or generates first."""


@dataclass(frozen=True, kw_only=True)
class StreamRequest(Generic[T]):
    """One request whose answer is read as it comes, without a limit on its time."""

    method: str = "GET"
    path: str
    decoder: Callable[[], Decoder[T]]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None


def path(*parts: str) -> str:
    """The path of these parts: a slash or a blank within one is a part of the name."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def given(**query: str | None) -> dict[str, str]:
    """A query of what is not None."""
    return {name: value for name, value in query.items() if value is not None}
