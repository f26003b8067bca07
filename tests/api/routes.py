"""The whole OpenAPI document, as a server has it, and what each route needs of a key."""

from __future__ import annotations

import re
from typing import Any

from tests.api.application import routes
from xinference.gateway.auth.permissions import Need, required_access

SCOPES = {
    Need.NOTHING: "open",
    Need.ASK: "use",
    Need.READ: "use, manage",
    Need.OWN: "any",
    Need.OVERSEE: "use of all models, manage, monitor",
    Need.MANAGE: "manage",
}


def document() -> dict[str, Any]:
    """What /openapi.json answers; a reader changes nothing in it."""
    made: dict[str, Any] = routes().openapi()
    return made


def scope_of(method: str, path: str) -> str:
    """What a request to a path, with names in place of its parameters, needs."""
    return SCOPES[required_access(method, re.sub(r"\{[^}]*\}", "x", path)).need]
