"""The management API as one application."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI

from xinference import __version__
from xinference.api import errors, openapi
from xinference.api.compression import Compression
from xinference.api.dependencies import Stop, provide
from xinference.api.request_log import RequestLog
from xinference.api.routes import (
    auto_register,
    cache,
    catalog,
    catalog_updates,
    cluster,
    cluster_nodes,
    devices,
    doctor,
    downloads,
    engine_metrics,
    engine_options,
    fits,
    kept_launches,
    launches,
    lifecycle,
    login,
    logs,
    models,
    registrations,
    replicas,
    server_settings,
    sessions,
    unsupported,
    watch,
)
from xinference.api.routes import keys as key_routes
from xinference.api.routes import requests as request_routes
from xinference.api.strict import NulCheck
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring
from xinference.routing.abortable_requests import AbortableRequests, Abortables


def make_app(
    controller: Controller,
    settings: Settings,
    keys: Keyring,
    stop: Stop,
    data_path: Mapping[str, Any] = MappingProxyType({}),
    running: Abortables | None = None,
    *,
    requests: RequestLog,
) -> FastAPI:
    """Build the management API.

    Args:
        stop: makes the server stop its engines and exit after the answer is sent.
        data_path: the OpenAPI paths and components of the gateway's routes.
        running: the requests of the gateway, which can be aborted.
        requests: the requests of the gateway, their records and totals.
    """
    app = build_routes(data_path)
    provide(
        app,
        controller=controller,
        settings=settings,
        keys=keys,
        running=running or AbortableRequests(),
        requests=requests,
        stop=stop,
        started=time.monotonic(),
    )
    return app


def build_routes(data_path: Mapping[str, Any]) -> FastAPI:
    """Build the application without the state that its routes read: `provide` sets it."""
    # FastAPI's own pages load their scripts from another server, and it makes the document in the event loop.
    app = FastAPI(title="Xinference", version=__version__, openapi_url=None)
    errors.install(app)
    app.add_middleware(NulCheck)
    app.add_middleware(Compression)
    for part in (
        *(
            request_routes,
            watch,
            devices,
            engine_metrics,
        ),  # first, because pages and programs ask for them again and again
        *(launches, lifecycle, kept_launches, catalog, catalog_updates, models, replicas, registrations),
        *(
            auto_register,
            cache,
            fits,
            engine_options,
            downloads,
            cluster,
            cluster_nodes,
            key_routes,
            login,
            logs,
            sessions,
        ),
        *(server_settings, doctor),
    ):
        app.include_router(part.router)
    app.include_router(unsupported.router)
    openapi.install(app, data_path)
    return app
