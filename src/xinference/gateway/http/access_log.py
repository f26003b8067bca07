"""The access log: one line for each request, written when its answer has ended. Used only if it is switched on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from xinference.gateway.auth.authentication import find_key
from xinference.gateway.http.asgi import ASGIApp, Message, Receive, Scope, Send
from xinference.keys.table import KeyTable
from xinference.log_setup import ACCESS, FIELDS

log = logging.getLogger(ACCESS)


class AccessLog:
    """An ASGI app that logs the requests to another one: client, key, method, path, status and seconds.

    The query, the headers and the bodies are not logged: they may have secrets. A key is logged by its name.
    """

    def __init__(self, app: ASGIApp, keys: Callable[[], KeyTable]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        method, path = scope["method"], scope["path"]

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            self._write(scope, method, path, status, time.perf_counter() - began)

    def _write(self, scope: Scope, method: str, path: str, status: int, seconds: float) -> None:
        key = find_key(self._keys(), scope.get("headers", ()))
        client = (scope.get("client") or ("-",))[0]
        fields = {
            "client": client,
            "key": key.name if key is not None else None,
            "method": method,
            "path": path,
            "status": status or None,
            "seconds": round(seconds, 4),
        }
        name = key.name if key is not None else "-"
        log.info("%s %s %s %s %s %.3f s", client, name, method, path, status or "-", seconds, extra={FIELDS: fields})
