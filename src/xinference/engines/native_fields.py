"""The table of the request fields that one engine reads in addition to those of the APIs that the gateway serves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
#: A count, or -1 for no limit or all.
CountOrAll = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
UpTo20 = Annotated[int, Meta(ge=0, le=20)]
ShortText = Annotated[str, Meta(max_length=1024)]
LongText = Annotated[str, Meta(max_length=64 * 1024)]
ShortTexts = Annotated[list[ShortText], Meta(max_length=64)]
TokenList = Annotated[list[Count], Meta(max_length=1024)]


class NativeFields:
    """The fields that an engine accepts, each with its type and bounds, and the fields that no client may set.

    A field in neither table is not passed on: in a newer version of the engine it may have an effect that has not been
    reviewed. It is not refused either, because clients send fields of APIs that are newer than this server.
    """

    def __init__(
        self,
        taken: Mapping[str, Any] | None = None,
        refused: frozenset[str] = frozenset(),
        not_of_texts: frozenset[str] = frozenset(),
        rewrite: Callable[[dict[str, Any], bool], dict[str, Any]] | None = None,
    ) -> None:
        """
        Args:
            not_of_texts: those of the fields that the engine does not read in a request for a text.
            rewrite: checks the fields of a request in further ways, and returns those that the engine gets in another
                form; the second argument is whether it is a chat.
        """
        self.taken = taken or {}
        self.refused = refused
        self.not_of_texts = not_of_texts
        self.rewrite = rewrite
        self.of_texts = frozenset(self.taken) - not_of_texts - refused
        """The fields that the engine reads in a request for a text."""
        fields = [(name, kind | None, None) for name, kind in self.taken.items()]
        self.form = msgspec.defstruct("NativeFields", fields)
        """The form by which `msgspec.convert` checks types and bounds."""
