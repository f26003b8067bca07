"""The management API from the first moment of the server on: its application is loaded after the server listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from xinference.gc_pause import without_collections

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)


class Management:
    """An ASGI app whose requests wait until the application is loaded.

    FastAPI, the schemas and the routes take half of the server's start. The data path needs none of them, so a server
    answers it without waiting for them. They are loaded in a thread, as the loop serves streams meanwhile.
    """

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None
        self._loading: asyncio.Task[ASGIApp] | None = None

    def begin(self) -> None:
        """Begin to load the application, if nothing has begun it yet."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(_report)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if app is None:
            self.begin()
            assert self._loading is not None
            app = await asyncio.shield(self._loading)  # a client that leaves does not end it for the others
        await app(scope, receive, send)

    async def _load(self) -> ASGIApp:
        with without_collections():
            self._app = app = await asyncio.to_thread(self._build)
        return app


def _report(loading: asyncio.Task[ASGIApp]) -> None:
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.critical("the management API cannot be loaded, and no request to it is answered", exc_info=error)
