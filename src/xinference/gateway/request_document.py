"""The body of one request: its bytes, and its decoded fields once a step needs them.

Every step reads and changes the same fields, so that a body is decoded once. It is encoded only if a step has changed a
field; otherwise the client's bytes are passed on.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from xinference.engines.dialect import Body

_MISSING = object()
#: A letter, a digit or an underscore that JSON writes as a number.
_WRITTEN_AS_NUMBER = re.compile(rb"\\u00[3-7]")
_BACKSLASH = ord("\\")


class RequestDocument:
    """One request's body. Steps change its fields, at every depth, by the methods `put`, `remove` and `drop_nulls`."""

    __slots__ = ("_fields", "is_changed", "raw")

    def __init__(self, raw: bytes, fields: Body | None = None) -> None:
        """
        Args:
            raw: the body as JSON.
            fields: `raw` decoded, if the caller has it.
        """
        self.raw = raw
        self._fields = fields
        self.is_changed = False
        """Whether the fields differ from `raw`."""

    @property
    def fields(self) -> Body:
        """The decoded fields."""
        if self._fields is None:
            self._fields = msgspec.json.decode(self.raw)
        fields: Body = self._fields
        return fields

    def encoded(self) -> bytes:
        """The body with all changes; the same bytes as before if there are none."""
        return msgspec.json.encode(self._fields) if self.is_changed else self.raw

    def put(self, holder: Body, name: str, value: Any) -> None:
        """Set a member of an object of this body."""
        before = holder.get(name, _MISSING)
        if before is not value and before != value:
            holder[name] = value
            self.is_changed = True

    def remove(self, holder: Body, name: str) -> Any:
        """Remove a member of an object of this body, if it is there; returns its value or None."""
        if name not in holder:
            return None
        self.is_changed = True
        return holder.pop(name)

    def drop_nulls(self, holder: Body, *kept: str) -> None:
        """Remove the members of an object that are null, except those that are named."""
        if None not in holder.values():  # a body may have hundreds of objects, and most have no null
            return
        for name in [name for name, value in holder.items() if value is None and name not in kept]:
            self.remove(holder, name)

    def add(self, members: Body) -> None:
        """Set further members of the body, without decoding it for that."""
        if self._fields is None:
            # At the end: a parser uses the last of two equal keys, and the client may have sent one with null.
            self.raw = self.raw[: self.raw.rindex(b"}")] + b"," + msgspec.json.encode(members)[1:]
            return
        for name, value in members.items():
            self.put(self._fields, name, value)

    def exchange(self, name: bytes, text: bytes, members: bytes) -> None:
        """Put other members in the place of one, without decoding the body if the place is certain.

        Args:
            name: letters and underscores in quotes, and a colon. The body has a member of this name.
            text: the JSON of its value, as it is in the body.
            members: the JSON of the others with their names, without braces.
        """
        if self._fields is None:
            body = self.raw
            start, end = member_place(body, name, text)
            if end:
                self.raw = body[:start] + members + body[end:]
                return
        self.remove(self.fields, name[1:-2].decode())
        for new, value in msgspec.json.decode(b"{%b}" % members).items():
            self.put(self.fields, new, value)

    def replace(self, fields: Body) -> None:
        """Take other fields in place of those of the body."""
        if fields != self._fields:
            self.is_changed = True
        self._fields = fields


def member_place(body: bytes, name: bytes, text: bytes) -> tuple[int, int]:
    """Where a body has a member; the end is 0 if the place is not certain. The arguments are those of `exchange`.

    Most bodies have their messages before such a member: then it is among the last, behind which no object ends and no
    name has escapes. Else a name that the whole body has once is that of the member. This search takes as long as the
    check of the body.
    """
    start = body.rfind(name)
    if start < 0:
        return 0, 0
    value = start + len(name)
    if not body.startswith(text, value):
        value += 1  # a blank
        if not body.startswith(text, value):
            return 0, 0
    end = value + len(text)
    if (
        (
            body.find(b"}", end, -1) < 0
            and body.find(b"\\", end) < 0
            and body[start - 1] != _BACKSLASH  # it would be the end of a longer name
        )
        or (body.find(name[:-1], 0, start) < 0 and _WRITTEN_AS_NUMBER.search(body) is None)
    ):
        return start, end
    return 0, 0
