"""The data path's OpenAPI document, generated from `protocol.requests`, by which bodies are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from xinference.gateway.anthropic import A_VERSION, MAX_LIMIT, VERSION
from xinference.gateway.metrics import CONTENT_TYPE
from xinference.gateway.routes import DATA_PATHS, PROBES, READY, DataPath

Json = dict[str, Any]
TEMPLATE = "#/components/schemas/{name}"

_ERRORS = {
    400: "The request is not valid; the message names the field",
    401: "A key is required, or the given one is unknown",
    403: "The key does not permit this, or the request comes from another site",
    404: "Model not found; similar names are listed",
    413: "The body is too large",
    415: "The content type is not JSON",
    422: "The engine rejects a value",
    429: "The limit of the key or the model is reached",
    499: "The request was aborted",
    500: "A defect of the server or the engine",
    501: "The engine does not support this",
    502: "The engine died before its answer was complete",
    503: "The model is not ready yet, or has failed",
    504: "The engine took longer than the time limit of the key or the model",
}
_SUMMARIES = {
    "/v1/chat/completions": "Create a chat completion",
    "/v1/completions": "Complete a prompt",
    "/v1/embeddings": "Create embeddings of texts",
    "/v1/responses": "Create a response, in OpenAI's form",
    "/v1/messages": "Create a message, in Anthropic's form",
    "/v1/messages/count_tokens": "Count the tokens of messages, in Anthropic's form",
    "/anthropic/v1/messages": "The same as `/v1/messages`, for clients with the base URL `/anthropic`",
    "/anthropic/v1/messages/count_tokens": "Count the tokens of messages, in Anthropic's form",
    "/v1/rerank": "Rank documents by their relevance to a query",
    "/v1/reranking": "The same as `/v1/rerank`, by another name",
    "/v2/rerank": "The same as `/v1/rerank`, on the path of Cohere's version 2",
    "/rerank": "The same as `/v1/rerank`, on a path without a version",
    "/v1/score": "Score the relevance of texts to others, pair by pair",
    "/v1/convert_ids_to_tokens": "Convert token ids to texts",
    "/tokenize": "Convert a text to token ids",
    "/v1/tokenize": "The same as `/tokenize`",
    "/detokenize": "Convert token ids to a text",
    "/v1/detokenize": "The same as `/detokenize`",
    "/apply-template": "Apply the chat template to messages, without generating an answer",
    "/infill": "Fill in the middle of a text",
}


def _object(description: str, required: Mapping[str, str], **more: Any) -> Json:
    kinds = {name: {} if kind == "any" else {"type": kind} for name, kind in required.items()}
    return {"type": "object", "description": description, "required": list(required), "properties": kinds, **more}


#: The guaranteed fields of each answer; engines add further ones.
_ANSWERS: dict[str, Json] = {
    "/v1/chat/completions": _object(
        "A chat completion", {"id": "string", "object": "string", "model": "string", "choices": "array"}
    ),
    "/v1/completions": _object(
        "A completion", {"id": "string", "object": "string", "model": "string", "choices": "array"}
    ),
    "/v1/embeddings": _object(
        "Embeddings", {"object": "string", "model": "string", "data": "array", "usage": "object"}
    ),
    "/v1/responses": _object("A response", {"id": "string", "object": "string", "output": "array"}),
    "/v1/messages": _object("A message", {"id": "string", "type": "string", "role": "string", "content": "array"}),
    "/v1/messages/count_tokens": _object("A count", {"input_tokens": "integer"}),
    "/v1/rerank": _object("The documents, the most relevant first", {"results": "array"}),
    "/v1/score": _object("The score of each pair of texts", {"object": "string", "model": "string", "data": "array"}),
    "/v1/convert_ids_to_tokens": {"type": "array", "description": "The text of each id, in the form of the request"},
    "/tokenize": _object("The token ids of the text", {"tokens": "array", "count": "integer"}),
    "/detokenize": _object("The text of the token ids", {"content": "string", "prompt": "string"}),
}
_OPENAI_ERROR = _object(
    "OpenAI's error; `detail` repeats its message",
    {"error": "object"},
    properties={
        "error": _object("The error", {"message": "string", "type": "string", "param": "any", "code": "any"}),
        "detail": {"type": "string"},
    },
)
_ANTHROPIC_ERROR = _object(
    "Anthropic's error",
    {"type": "string", "error": "object"},
    properties={
        "type": {"const": "error"},
        "error": _object("The error", {"type": "string", "message": "string"}),
    },
)
_MODEL = _object("A model", {"id": "string", "object": "string", "created": "integer", "owned_by": "string"})
_MODELS = _object("The models", {"object": "string", "data": "array"})
_MODELS["properties"]["data"]["items"] = _MODEL
_ANTHROPIC_MODEL = _object("A model", {"type": "string", "id": "string", "display_name": "string"})
_ANTHROPIC_PAGE = _object("The models in Anthropic's form", {"data": "array", "has_more": "boolean"})
_ANTHROPIC_PAGE["properties"]["data"]["items"] = _ANTHROPIC_MODEL
_VERSION_SCHEMA = {"type": "string", "pattern": f"^{A_VERSION.pattern.decode()}$", "example": VERSION}
#: The parameters of the list in Anthropic's form.
_PAGE_PARAMETERS = [
    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}},
    *({"name": name, "in": "query", "schema": {"type": "string"}} for name in ("after_id", "before_id")),
]
_HEALTH = _object("The server answers", {"status": "string"})
_VERSION = _object("The version of the server", {"version": "string"})
#: Path of a probe -> its summary.
_PROBES = {
    "/health": "Check that the server answers",
    "/healthz": "The same as `/health`, by Kubernetes's name",
    "/readyz": "Check that the server accepts requests: 503 while it stops",
    "/ping": "The same as `/health`",
    "/version": "The version of the server",
}


def document() -> Json:
    """``paths`` and ``components`` of every route that the gateway answers itself."""
    kinds = sorted({path.decoder.type for path in DATA_PATHS.values()}, key=lambda kind: str(kind.__name__))
    refs, shapes = msgspec.json.schema_components(kinds, ref_template=TEMPLATE)
    bodies = dict(zip(kinds, refs, strict=True))
    paths = {name: {"post": _operation(name, path, bodies[path.decoder.type])} for name, path in DATA_PATHS.items()}
    paths["/metrics"] = {"get": _metrics()}
    paths |= {path: {"get": _probe(path)} for path in PROBES}
    paths["/v1/models"] = {"get": _models()}
    listing = "List the models that are ready, in Anthropic's form"
    pages = _reading("list_anthropic_models", listing, _ANTHROPIC_PAGE, (400, 401, 403))
    paths["/anthropic/v1/models"] = {"get": {**pages, "parameters": _PAGE_PARAMETERS}}
    uid = {"name": "model_uid", "in": "path", "required": True, "schema": {"type": "string"}}
    one = _reading(
        "describe_anthropic_model", "Describe a model, in Anthropic's form", _ANTHROPIC_MODEL, (401, 403, 404)
    )
    paths["/anthropic/v1/models/{model_uid}"] = {"get": {**one, "parameters": [uid]}}
    paths["/v1/responses/{response_id}"] = _kept_response()
    schemas = {**shapes, "OpenAIError": _OPENAI_ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    return {"paths": paths, "components": {"schemas": schemas}}


def _operation(name: str, path: DataPath, body: Json) -> Json:
    error = "AnthropicError" if path.anthropic else "OpenAIError"
    answer = _ANSWERS.get(name) or _ANSWERS.get(path.upstream, {"description": "The answer of the engine"})
    operation: Json = {
        "tags": ["inference"],
        "summary": _SUMMARIES[name],
        "operationId": name.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The answer; with `stream` server-sent events",
                "content": {
                    "application/json": {"schema": answer},
                    "text/event-stream": {},
                },
            },
            **{str(status): _error(description, error) for status, description in _ERRORS.items()},
        },
    }
    if path.anthropic:
        header = {"name": "anthropic-version", "in": "header", "required": True, "schema": _VERSION_SCHEMA}
        operation["parameters"] = [header]
    return operation


def _models() -> Json:
    summary = "List the models that are ready; with the header `anthropic-version` in Anthropic's form"
    header = {"name": "anthropic-version", "in": "header", "required": False, "schema": _VERSION_SCHEMA}
    answers = {"anyOf": [_MODELS, _ANTHROPIC_PAGE]}
    return {**_reading("list_models", summary, answers, (400, 401, 403)), "parameters": [header, *_PAGE_PARAMETERS]}


def _kept_response() -> Json:
    named = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string"}}
    answers = _ANSWERS["/v1/responses"], _object("What was deleted", {"id": "string", "deleted": "boolean"})
    read = _reading("read_response", "Read a response that is kept for the key", answers[0], (401, 404))
    delete = _reading("delete_response", "Delete a response that is kept for the key", answers[1], (401, 404))
    return {"get": {**read, "parameters": [named]}, "delete": {**delete, "parameters": [named]}}


def _probe(path: str) -> Json:
    errors = (503,) if path == READY else ()
    return _reading(path.strip("/"), _PROBES[path], _VERSION if path == "/version" else _HEALTH, errors)


def _metrics() -> Json:
    operation = _reading("metrics", "Metrics for Prometheus", {}, (401, 403))
    operation["responses"]["200"]["content"] = {CONTENT_TYPE.decode(): {"schema": {"type": "string"}}}
    return operation


def _reading(name: str, summary: str, answer: Json, errors: tuple[int, ...]) -> Json:
    return {
        "tags": ["inference"],
        "summary": summary,
        "operationId": name,
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": answer}}},
            **{str(s): {"description": _ERRORS[s], "content": {"application/json": {}}} for s in (*errors, 403)},
        },
    }


def _error(description: str, name: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": TEMPLATE.format(name=name)}}},
    }
