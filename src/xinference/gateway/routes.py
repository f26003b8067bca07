"""The paths that the gateway serves, and the deployment that a request names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.protocol import requests
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route, RoutingTable

#: Maximum number of characters of a model's name that are compared and shown.
MAX_NAME = 200


@dataclass(frozen=True)
class DataPath:
    """One path of the data path."""

    upstream: str
    """The engine's path."""
    decoder: msgspec.json.Decoder[Any]
    """Decodes and checks the body; returns a `protocol.requests.Request`."""
    prompt_field: str
    """The body's field with the prompt, for errors about its length."""
    anthropic: bool = False
    """Errors have Anthropic's form."""
    done: bool = False
    """A stream ends with ``data: [DONE]``."""


def _path(upstream: str, shape: type[requests.Request], field: str, **options: bool) -> DataPath:
    return DataPath(upstream, msgspec.json.Decoder(shape), field, **options)


_MESSAGES = _path("/v1/messages", requests.AnthropicMessages, "messages", anthropic=True)
_COUNT = _path("/v1/messages/count_tokens", requests.CountTokens, "messages", anthropic=True)

#: Every POST path of the data path, as clients write it.
DATA_PATHS: dict[str, DataPath] = {
    "/v1/chat/completions": _path("/v1/chat/completions", requests.Chat, "messages", done=True),
    "/v1/completions": _path("/v1/completions", requests.Completion, "prompt", done=True),
    "/v1/embeddings": _path("/v1/embeddings", requests.Embeddings, "input"),
    "/v1/responses": _path("/v1/responses", requests.Responses, "input"),
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _COUNT,
    "/anthropic/v1/messages": _MESSAGES,
    "/anthropic/v1/messages/count_tokens": _COUNT,
    "/v1/rerank": _path("/v1/rerank", requests.Rerank, "documents"),
    "/rerank": _path("/rerank", requests.Rerank, "documents"),
    "/v1/convert_ids_to_tokens": _path("/detokenize", requests.TokenIds, "input"),
    "/tokenize": _path("/tokenize", requests.Tokenize, "content"),
    "/detokenize": _path("/detokenize", requests.Detokenize, "tokens"),
    "/apply-template": _path("/apply-template", requests.Template, "messages"),
    "/infill": _path("/infill", requests.Infill, "prompt"),
}


def find(table: RoutingTable, model: str, path: str) -> Route:
    """The deployment that `model` names.

    Raises:
        Refusal: 404 with the names of the running models; 400 if the engine does not serve `path`.
    """
    route = table.routes.get(model)
    if route is None:
        raise _unknown(table, model)
    if path not in route.paths:
        # A deployment that has not started yet may not know its engine's paths.
        if not route.paths and not route.targets:
            return route
        raise _wrong_path(table, route, path)
    return route


def _unknown(table: RoutingTable, model: str) -> Refusal:
    near = difflib.get_close_matches(model[:MAX_NAME], table.routes, n=1)
    if near:
        hint = f"Did you mean {near[0]!r}? Running models: {_format_names(table.routes)}."
    elif table.routes:
        hint = f"Running models: {_format_names(table.routes)}."
    else:
        hint = "No model is running: start one with `xinference launch`."
    return Refusal(Code.MODEL_NOT_FOUND, f"There is no model {_short(model)!r}.", hint=hint, param="model")


def _wrong_path(table: RoutingTable, route: Route, path: str) -> Refusal:
    serves = _format_names(route.paths)
    others = [uid for uid, other in table.routes.items() if path in other.paths]
    return Refusal(
        Code.UNSUPPORTED_PATH,
        f"The model {route.uid!r} ({route.model_type} on {route.engine}) does not serve {path}; it serves {serves}.",
        hint=f"{path} is served by {_format_names(others)}." if others else f"No running model serves {path}.",
        param="model",
    )


def _format_names(names: Any, maximum: int = 20) -> str:
    shown = sorted(names)
    rest = f" and {len(shown) - maximum} more" if len(shown) > maximum else ""
    return ", ".join(shown[:maximum]) + rest


def _short(model: str) -> str:
    return model if len(model) <= MAX_NAME else model[:MAX_NAME] + "…"
