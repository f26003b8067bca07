"""The stream of changes: a snapshot of the server first, then each change."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, cast

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from xinference.api.dependencies import KeyDep, KeyringDep, WatchDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.control.watch.viewer import Viewer, current_viewer

router = APIRouter(tags=["watch"], route_class=StrictRoute, responses=ERROR_RESPONSES)


class FollowerResponse(StreamingResponse):
    """A stream whose generator is closed at once when the client leaves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(cast(AsyncGenerator[bytes], self.body_iterator)):
            await super().__call__(scope, receive, send)


@router.get(
    "/v1/watch",
    response_class=StreamingResponse,
    response_model=None,
    responses={
        200: {
            "description": "Server-sent events; docs/watch.md has their shapes",
            "content": {"text/event-stream": {}},
        },
        **problems(429),
    },
)
async def watch(
    watching: WatchDep,
    keyring: KeyringDep,
    key: KeyDep,
    topics: str | None = None,
    last_event_id: Annotated[str | None, Header(description="The id of the last event, to continue a stream")] = None,
) -> StreamingResponse:
    """Follow what changes: models, launches, downloads, requests, events, rates and devices, in one stream.

    `topics` names some of them, separated by commas; the default are all that the key may follow. The first event is
    a snapshot. A follower that reads too slowly gets `resync` and a new snapshot in place of what it has missed.
    """
    viewer = Viewer(key)
    chosen = viewer.topics(topics)
    watching.check_room(viewer)
    stream = watching.follow(chosen, lambda: current_viewer(key, keyring.table, time.time()), last_event_id)
    return FollowerResponse(
        stream,
        media_type="text/event-stream",
        # nginx would keep the events until its buffer is full.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
