"""Responses that are event streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from fastapi.responses import StreamingResponse

#: The OpenAPI description of a route that can stream its events.
EVENT_STREAM: dict[str, Any] = {
    "description": "A list; with `follow` server-sent events up to the last one",
    "content": {"text/event-stream": {}},
}


def event_stream(stream: AsyncIterator[dict[str, Any]]) -> StreamingResponse:
    """Sends events as server-sent events until the client disconnects."""

    async def lines() -> AsyncIterator[bytes]:
        async for event in stream:
            yield b"data: " + msgspec.json.encode(event) + b"\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
