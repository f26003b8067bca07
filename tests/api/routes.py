"""The whole OpenAPI document, as a server has it, and what each route needs of a key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.api.application import request_log
from xinference.api.app import make_app
from xinference.config import Settings
from xinference.control.controller import Controller
from xinference.gateway.auth.permissions import Need, required_access
from xinference.gateway.openapi import document as data_path
from xinference.keys.keyring import Keyring
from xinference.store.database import Store

SCOPES = {
    Need.NOTHING: "open",
    Need.ASK: "use",
    Need.READ: "use, manage",
    Need.OWN: "any",
    Need.OVERSEE: "use of all models, manage, monitor",
    Need.MANAGE: "manage",
}


def document(home: Path) -> dict[str, Any]:
    """What /openapi.json answers."""
    store, settings = Store(home / "x.db"), Settings(home=home)
    try:
        requests = request_log(store)
        app = make_app(
            Controller(settings, store), settings, Keyring(store), lambda: None, data_path(), requests=requests
        )
        made: dict[str, Any] = app.openapi()
        return made
    finally:
        store.close()


def scope_of(method: str, path: str) -> str:
    """What a request to a path, with names in place of its parameters, needs."""
    return SCOPES[required_access(method, re.sub(r"\{[^}]*\}", "x", path)).need]
