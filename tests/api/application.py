"""The management API of one test, over routes that are built once a process: FastAPI takes 50 ms for them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from fastapi import FastAPI

from tests.support.no_requests import NoRequests
from xinference.api.app import build_routes
from xinference.api.dependencies import provide
from xinference.api.request_log import RequestLog
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.control.stats import Sampler
from xinference.control.usage import Usage
from xinference.gateway.openapi import document as data_path
from xinference.keys.keyring import Keyring
from xinference.records.hub import RecordHub
from xinference.routing.abortable_requests import AbortableRequests
from xinference.routing.active_requests import ActiveRequests
from xinference.store.database import Store


def application(
    controller: Controller,
    settings: Settings,
    keys: Keyring,
    stop: Callable[[], None] = lambda: None,
    requests: RequestLog | None = None,
) -> FastAPI:
    """The application with this state, until the next call: a test has only one at a time."""
    app = routes()
    provide(
        app,
        controller=controller,
        settings=settings,
        keys=keys,
        running=AbortableRequests(),
        requests=requests or request_log(controller._store),
        stop=stop,
        started=time.monotonic(),
    )
    return app


def request_log(store: Store, hub: RecordHub | None = None, running: ActiveRequests | None = None) -> RequestLog:
    """The requests of a server."""
    hub, active = hub or RecordHub(), running or NoRequests()
    return RequestLog(hub, Usage(store, hub.totals), active, Sampler(hub.totals, active, host=dict))


@functools.cache
def routes() -> FastAPI:
    """The routes, and their OpenAPI document as soon as a test reads it."""
    return build_routes(data_path())
