"""The parts of Anthropic's API other than messages: the version header, and the list of models."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.gateway.routes import serves
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route, RoutingTable

MODELS = "/anthropic/v1/models"
VERSION = "2023-06-01"
#: Any version is accepted: the requests and answers that the gateway serves are the same in all of them.
A_VERSION = re.compile(rb"\d{4}-\d{2}-\d{2}")


def check_version(headers: dict[bytes, bytes]) -> None:
    """Check the header that names the version of Anthropic's API.

    Raises:
        Refusal: 400, naming the header.
    """
    version = headers.get(b"anthropic-version")
    if version is None:
        raise Refusal(Code.INVALID_REQUEST, f"The header anthropic-version is required, such as {VERSION}.")
    if not A_VERSION.fullmatch(version):
        shown = version[:40].decode("latin-1")
        raise Refusal(Code.INVALID_REQUEST, f"anthropic-version {shown!r} is not a version, such as {VERSION}.")


def models(table: RoutingTable, path: str) -> bytes:
    """The answer of ``/anthropic/v1/models``, or of the path of one model below it.

    Raises:
        Refusal: 404.
    """
    routes = {uid: route for uid, route in table.routes.items() if serves(route, "/v1/messages")}
    if path == MODELS:
        data = [_model(name, route) for name, route in routes.items()]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return msgspec.json.encode({"data": data, "has_more": False, "first_id": first, "last_id": last})
    uid = path.removeprefix(MODELS + "/")
    if uid not in routes:
        raise Refusal(Code.MODEL_NOT_FOUND, f"There is no model {uid[:200]!r} that answers messages.")
    return msgspec.json.encode(_model(uid, routes[uid]))


def _model(name: str, route: Route) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": route.model_name,
        "created_at": datetime.fromtimestamp(route.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
