"""A request as a value: method, path, query and body, and the parser of its answer.

Each function of the modules `..._requests` makes one. It is a method of `Client` and of `AsyncClient`, or, in
`model_requests`, of a model's handle: see `calls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from xinference.client.answers import Decoder, Json

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Request(Generic[T]):
    """A request whose answer is read as a whole."""

    method: str = "GET"
    path: str
    read: Callable[..., T]
    """Parses the body, or with `with_headers` the body and the headers."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    without_timeout: bool = False
    """Wait for the answer without a time limit: a model loads or generates first."""
    with_headers: bool = False

    def answer(self, body: bytes, headers: Mapping[str, str]) -> T:
        """What the answer contains."""
        return self.read(body, headers) if self.with_headers else self.read(body)


@dataclass(frozen=True, kw_only=True)
class StreamRequest(Generic[T]):
    """A request whose answer is streamed, without a time limit."""

    method: str = "GET"
    path: str
    decoder: Callable[[], Decoder[T]]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def path(*parts: str) -> str:
    """The path of these parts; a slash or a blank in a part is escaped."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def query_of(**query: str | None) -> dict[str, str]:
    """The parameters that are not None."""
    return {name: value for name, value in query.items() if value is not None}
