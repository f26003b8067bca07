"""The body of one request: its bytes, and its decoded fields once a step needs them.

Every step reads and changes the same fields, so that a body is decoded once. It is encoded only if a step has changed a
field; otherwise the client's bytes are passed on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.engines.dialect import Body

_MISSING = object()


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

    def replace(self, fields: Body) -> None:
        """Take other fields in place of those of the body."""
        if fields != self._fields:
            self.is_changed = True
        self._fields = fields
