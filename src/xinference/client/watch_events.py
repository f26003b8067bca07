"""The events of ``GET /v1/watch`` for the clients."""

from __future__ import annotations

from collections.abc import Iterator

from xinference.client.answers import Decoder, Json, as_object


class WatchEvents(Decoder[Json]):
    """Each event with its ``id`` (or None), the name ``event`` and its ``data``; complete after the event ``end``."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._ended = False

    def feed(self, chunk: bytes) -> Iterator[Json]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            if name:  # a comment has an empty name
                self._fields[name] = value.removeprefix(" ")
            elif not value:
                fields, self._fields = self._fields, {}
                if "data" in fields:
                    yield self._event(fields)

    def _event(self, fields: dict[str, str]) -> Json:
        event = fields.get("event", "message")
        self._ended = event == "end"
        return {"id": fields.get("id"), "event": event, "data": as_object(fields["data"].encode())}

    def complete(self) -> bool:
        return self._ended
