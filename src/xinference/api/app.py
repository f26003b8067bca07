"""The management API as one application."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from xinference import __version__
from xinference.api import (
    cache,
    catalog,
    cluster,
    errors,
    launching,
    models,
    registrations,
    replicas,
    token,
)
from xinference.api import keys as key_routes
from xinference.api.strict import Clean
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.keys.keyring import Keyring


def make_app(controller: Controller, settings: Settings, keys: Keyring, stop: Callable[[], None]) -> FastAPI:
    """Build it. `stop` asks the server to end itself and its engines after the answer is sent."""
    app = FastAPI(title="Xinference", version=__version__)
    app.state.controller = controller
    app.state.settings = settings
    app.state.keys = keys
    app.state.stop = stop
    errors.install(app)
    app.add_middleware(Clean)
    for part in (launching, catalog, models, replicas, registrations, cache, cluster, key_routes, token):
        app.include_router(part.router)
    return app
