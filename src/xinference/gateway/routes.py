"""The paths that the gateway serves, and the deployment that a request names."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import msgspec

from xinference import __version__
from xinference.error_codes import Code
from xinference.protocol import requests
from xinference.protocol.errors import Refusal
from xinference.routing.table import Route, RoutingTable

#: Engine paths that only convert or count tokens, and run no model.
FREE = frozenset({"/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens"})
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
    is_response: bool = False
    """The request is translated to a chat: see `gateway.responses`."""
    is_tokens: bool = False
    """The answer gets the fields of each engine's form: see `gateway.token_answers`."""
    has_inputs: bool = False
    """The request may have many inputs: see `gateway.divided_requests`."""
    is_split: bool = False
    """The request is split into requests of the engine: see `gateway.split_requests`."""


def _path(upstream: str, shape: type[requests.Request], field: str, **options: bool) -> DataPath:
    return DataPath(upstream, msgspec.json.Decoder(shape), field, **options)


_MESSAGES = _path("/v1/messages", requests.AnthropicMessages, "messages", anthropic=True)
_COUNT = _path("/v1/messages/count_tokens", requests.CountTokens, "messages", anthropic=True)

_RERANK = _path("/v1/rerank", requests.Rerank, "documents", has_inputs=True)
_TOKENIZE = _path("/tokenize", requests.Tokenize, "content", is_tokens=True)
_DETOKENIZE = _path("/detokenize", requests.Detokenize, "tokens", is_tokens=True)

#: Path of the management API -> seconds in which its client may read nothing. The server keeps nothing for a follower
#: that does not read, so it may pause for longer than the reader of an answer, and learns then what it has missed.
READ_PAUSES = {"/v1/watch": 1200.0}
#: Every POST path of the data path, as clients write it.
DATA_PATHS: dict[str, DataPath] = {
    "/v1/chat/completions": _path("/v1/chat/completions", requests.Chat, "messages", done=True),
    "/v1/completions": _path("/v1/completions", requests.Completion, "prompt", done=True, has_inputs=True),
    "/v1/embeddings": _path("/v1/embeddings", requests.Embeddings, "input", has_inputs=True),
    "/v1/responses": _path("/v1/chat/completions", requests.Responses, "input", is_response=True),
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": _COUNT,
    "/anthropic/v1/messages": _MESSAGES,
    "/anthropic/v1/messages/count_tokens": _COUNT,
    "/v1/rerank": _RERANK,
    "/v1/reranking": _RERANK,
    "/v2/rerank": _RERANK,
    "/rerank": _path("/rerank", requests.Rerank, "documents", has_inputs=True),
    "/v1/score": _path("/v1/rerank", requests.Score, "text_2", is_split=True),
    "/v1/convert_ids_to_tokens": _path("/detokenize", requests.TokenIds, "input", is_split=True),
    "/tokenize": _TOKENIZE,
    "/v1/tokenize": _TOKENIZE,
    "/detokenize": _DETOKENIZE,
    "/v1/detokenize": _DETOKENIZE,
    "/apply-template": _path("/apply-template", requests.Template, "messages"),
    "/infill": _path("/infill", requests.Infill, "prompt"),
}

READ_METHODS = frozenset({"GET", "HEAD"})
_OK = b'{"status":"ok"}'
READY = "/readyz"
#: Path of a probe -> its answer. ``/healthz`` and ``/readyz`` are Kubernetes's names.
PROBES = {
    "/health": _OK,
    "/healthz": _OK,
    READY: _OK,
    "/ping": _OK,
    "/version": msgspec.json.encode({"version": __version__}),
}

CHAT = "/v1/chat/completions"
#: The chat that a response is translated to.
RESPONSE_AS_CHAT = _path(CHAT, requests.Chat, "messages", is_response=True)
#: Path of an engine -> what its requests are translated to for an engine with chats that lacks it; see
#: `gateway.messages`.
_SUBSTITUTES = {
    _MESSAGES.upstream: _path(CHAT, requests.Chat, "messages", anthropic=True),
    _COUNT.upstream: _path("/tokenize", requests.Tokenize, "messages", anthropic=True),
}


def substitute(route: Route, path: str) -> DataPath | None:
    """What a request of `path` is translated to; None: the engine has the path, or nothing in its place."""
    return None if path in route.paths else as_chat(route, path)


def as_chat(route: Route, path: str) -> DataPath | None:
    """What a request of `path` is translated to if it has to be a chat; None: the engine has nothing for it."""
    other = _SUBSTITUTES.get(path)
    if other is None or CHAT not in route.paths or other.upstream not in route.paths:
        return None
    return other


def serves(route: Route, path: str) -> bool:
    """Whether requests of an engine's path are answered, also by a translation."""
    return path in route.paths or substitute(route, path) is not None


def find(table: RoutingTable, model: str, path: str, written: str) -> Route:
    """The deployment that `model` names.

    Args:
        path: the engine's path.
        written: the path as the client wrote it, for errors.

    Raises:
        Refusal: 404 with the names of the running models; 400 if the engine does not serve `path`.
    """
    route = table.routes.get(model)
    if route is None:
        raise _unknown(table, model)
    if path not in route.paths and not serves(route, path):
        # A deployment that has not started yet may not know its engine's paths.
        if not route.paths and not route.targets:
            return route
        raise _wrong_path(table, route, path, written)
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


def _wrong_path(table: RoutingTable, route: Route, path: str, written: str) -> Refusal:
    own = _format_names(route.paths)
    others = [uid for uid, other in table.routes.items() if serves(other, path)]
    return Refusal(
        Code.UNSUPPORTED_PATH,
        f"The model {route.uid!r} ({route.model_type} on {route.engine}) does not serve {written}; it serves {own}.",
        hint=f"{written} is served by {_format_names(others)}." if others else f"No running model serves {written}.",
        param="model",
    )


def _format_names(names: Any, maximum: int = 20) -> str:
    shown = sorted(names)
    rest = f" and {len(shown) - maximum} more" if len(shown) > maximum else ""
    return ", ".join(shown[:maximum]) + rest


def _short(model: str) -> str:
    return model if len(model) <= MAX_NAME else model[:MAX_NAME] + "…"
