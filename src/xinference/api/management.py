"""The management API from the first moment of the server on: its application is loaded after the server listens."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gc_pause import without_collections

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger(__name__)
#: The path at the end of an error of `from MODULE import NAME`.
_IN_FILE = re.compile(r" \(/.*\)\Z", re.DOTALL)


class Management:
    """An ASGI app whose requests wait until the application is loaded.

    FastAPI, the schemas and the routes take half of the server's start. The data path needs none of them, so a server
    answers it without waiting for them. They are loaded in a thread, as the loop serves streams meanwhile.

    If they cannot be loaded, as during an upgrade of the package, requests get a problem, and the next one tries again.
    """

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None
        self._loading: asyncio.Task[ASGIApp] | None = None

    def begin(self) -> None:
        """Begin to load the application, unless it is loaded or being loaded."""
        if self._loading is None or _has_failed(self._loading):
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(_report)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if app is None:
            self.begin()
            assert self._loading is not None
            loading = self._loading
            await asyncio.wait({loading})  # a client that leaves does not end it for the others
            if (error := loading.exception()) is not None:
                await _refuse(send, _problem(error))
                return
            app = loading.result()
        await app(scope, receive, send)

    async def _load(self) -> ASGIApp:
        with without_collections():
            self._app = app = await asyncio.to_thread(self._build)
        return app


def _has_failed(loading: asyncio.Task[ASGIApp]) -> bool:
    return loading.done() and (loading.cancelled() or loading.exception() is not None)


def _problem(error: BaseException) -> Problem:
    return Problem(
        Code.MANAGEMENT_NOT_LOADED,
        f"The management API can't be loaded: {_reason(error)}.",
        hint="The server's log has the details. "
        "If the package is being upgraded, wait for the end, and restart the server; its models keep running. "
        "Otherwise the installation is incomplete: install it again.",
    )


def _reason(error: BaseException) -> str:
    """The reason without a path of this machine: it is also answered where no key is needed."""
    text = error.msg if isinstance(error, ImportError | SyntaxError) else ""
    text = _IN_FILE.sub("", text)
    name = type(error).__name__
    return f"{name}: {text[:200]}" if text and "/" not in text else name


async def _refuse(send: Send, problem: Problem) -> None:
    """Answer with a problem; the module that does this for the application may be the one that cannot be loaded."""
    body = json.dumps({"detail": str(problem), "problem": problem.to_dict()}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"5"),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _report(loading: asyncio.Task[ASGIApp]) -> None:
    if not loading.cancelled() and (error := loading.exception()) is not None:
        log.critical("the management API cannot be loaded; the next request to it tries again", exc_info=error)
