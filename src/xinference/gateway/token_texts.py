"""Converts token ids to their texts, one by one, for the embedding handle of Xinference's client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from xinference.gateway.engine_answers import ODD_ANSWER, odd_answer
from xinference.gateway.forward import ForwardedCall, Forwarder
from xinference.gateway.http.asgi import Message, Reply
from xinference.protocol.requests import TokenIds
from xinference.routing.table import Route


class _Recorder:
    """Records an answer instead of sending it to a client."""

    def __init__(self) -> None:
        self.body = b""

    async def send(self, message: Message) -> None:
        self.body += message.get("body", b"")


async def convert(forwarder: Forwarder, call: ForwardedCall, request: TokenIds, route: Route, reply: Reply) -> None:
    """Get the text of each distinct id from the engine, and answer in the form of the request: a list, or lists."""
    lists = [ids if isinstance(ids, list) else [ids] for ids in request.input]
    texts: dict[int, Any] = {}
    for number in sorted({number for ids in lists for number in ids}):
        recorder = _Recorder()
        body = msgspec.json.encode({"model": route.uid, "tokens": [number]})
        await forwarder.forward(replace(call, body=body), route, Reply(recorder.send))
        try:
            answer = msgspec.json.decode(recorder.body)
            # Engines name the text ``content`` or ``prompt``.
            texts[number] = answer.get("content", answer.get("prompt"))
        except ODD_ANSWER as error:
            raise odd_answer(route.uid, f"in a form that cannot be read: {type(error).__name__}") from error
    rows = [[texts[number] for number in ids] if isinstance(ids, list) else texts[ids] for ids in request.input]
    await reply.whole(200, msgspec.json.encode(rows))
