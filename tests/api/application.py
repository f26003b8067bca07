"""The management API of one test, over routes that are built once a process: FastAPI takes 50 ms for them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from fastapi import FastAPI

from xinference.api.app import build_routes
from xinference.api.dependencies import provide
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring
from xinference.routing.abortable_requests import AbortableRequests


def application(
    controller: Controller, settings: Settings, keys: Keyring, stop: Callable[[], None] = lambda: None
) -> FastAPI:
    """The application with this state, until the next call: a test has only one at a time."""
    app = _routes()
    provide(
        app,
        controller=controller,
        settings=settings,
        keys=keys,
        running=AbortableRequests(),
        stop=stop,
        started=time.monotonic(),
    )
    return app


@functools.cache
def _routes() -> FastAPI:
    return build_routes({})
