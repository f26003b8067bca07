"""The parts of Anthropic's API other than messages: the version header, and the list of models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec

from xinference.error_codes import Code
from xinference.gateway.auth.permissions import described_model
from xinference.gateway.routes import serves
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route, RoutingTable
from xinference.timestamps import utc_time

PREFIX = "/anthropic/"
MODELS = "/anthropic/v1/models"
#: Answered in OpenAI's form, unless the request has the header that names a version of Anthropic's API.
SHARED_MODELS = "/v1/models"
VERSION = "2023-06-01"
#: Any version is accepted: the requests and answers that the gateway serves are the same in all of them.
A_VERSION = re.compile(rb"\d{4}-\d{2}-\d{2}")
VERSION_HEADER = b"anthropic-version"
#: Maximum number of models in one page of the list. A request without a limit gets all models.
MAX_LIMIT = 1000
#: Every running model has it, so that the other stages of Anthropic's models list none.
LIFECYCLE = "active"


def is_asked(path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request that asks no model is one of Anthropic's API: by its path, or by the header of a version."""
    return path.startswith(PREFIX) or VERSION_HEADER in headers


def check_version(headers: dict[bytes, bytes]) -> None:
    """Check the header that names the version of Anthropic's API.

    Raises:
        Refusal: 400, naming the header.
    """
    version = headers.get(VERSION_HEADER)
    if version is None:
        raise Refusal(Code.INVALID_REQUEST, f"The header anthropic-version is required, such as {VERSION}.")
    if not A_VERSION.fullmatch(version):
        shown = version[:40].decode("latin-1")
        raise Refusal(Code.INVALID_REQUEST, f"anthropic-version {shown!r} is not a version, such as {VERSION}.")


def reads_models(path: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request reads the list of models, or one of them, in Anthropic's form."""
    if path.startswith(PREFIX):
        return path.startswith(MODELS)
    return VERSION_HEADER in headers and (path == SHARED_MODELS or described_model(path) is not None)


def models(table: RoutingTable, path: str, query: bytes = b"") -> bytes:
    """The answer of ``/anthropic/v1/models`` or ``/v1/models``, or of the path of one model below it.

    Raises:
        Refusal: 404, there is no such model; 400, a parameter of `query` is wrong.
    """
    routes = {uid: route for uid, route in table.routes.items() if serves(route, "/v1/messages")}
    if path in (MODELS, SHARED_MODELS):
        return msgspec.json.encode(_page(routes, parse_qs(query.decode("latin-1"), keep_blank_values=True)))
    uid = path.partition(SHARED_MODELS + "/")[2]
    if uid not in routes:
        raise Refusal(Code.MODEL_NOT_FOUND, f"There is no model {uid[:200]!r} that answers messages.")
    return msgspec.json.encode(_model(uid, routes[uid]))


def _page(routes: Mapping[str, Route], parameters: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The models after or before a model, at most `limit` of them: those next to it."""
    stages = [stage for name in ("lifecycle", "lifecycle[]") for stage in parameters.get(name, ())]
    names = list(routes) if not stages or LIFECYCLE in stages else []
    after, before = (parameters.get(name, ("",))[-1] for name in ("after_id", "before_id"))
    if after and before:
        raise Refusal(Code.INVALID_REQUEST, "A request has either after_id or before_id.", param="before_id")
    limit = _limit(parameters)
    if before:
        others = names[: _position(names, before, "before_id")]
        page = others[-limit:]
    else:
        others = names[_position(names, after, "after_id") + 1 :] if after else names
        page = others[:limit]
    return {
        "data": [_model(name, routes[name]) for name in page],
        "has_more": len(others) > len(page),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def _limit(parameters: Mapping[str, Sequence[str]]) -> int:
    values = parameters.get("limit")
    if values is None:
        return MAX_LIMIT
    text = values[-1]
    if text.isdecimal() and text.isascii() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT:
        return int(text)
    raise Refusal(Code.INVALID_REQUEST, f"limit: {text[:40]!r} is not a number from 1 to {MAX_LIMIT}.", param="limit")


def _position(names: Sequence[str], name: str, param: str) -> int:
    if name in names:
        return names.index(name)
    raise Refusal(
        Code.INVALID_REQUEST,
        f"{param}: there is no model {name[:200]!r} that answers messages.",
        hint="Read the list from its beginning.",
        param=param,
    )


def _model(name: str, route: Route) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": route.model_name,
        "created_at": utc_time(route.created),
        "lifecycle": LIFECYCLE,
        "max_input_tokens": route.context_length,
        "max_tokens": route.max_output_tokens or route.context_length,
    }
