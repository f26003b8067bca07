"""The data path's OpenAPI document, generated from `protocol.requests`, by which bodies are checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from xinference.gateway.anthropic import A_VERSION, VERSION
from xinference.gateway.metrics import CONTENT_TYPE
from xinference.gateway.routes import DATA_PATHS, DataPath

Json = dict[str, Any]
TEMPLATE = "#/components/schemas/{name}"

_ERRORS = {
    400: "The request is wrong; the message names the field",
    401: "A key is needed, or this one is not known",
    403: "The key may not do this, or the request comes from another site",
    404: "There is no such model; the near ones are named",
    413: "The body is too large",
    415: "The body is not JSON by its content type",
    422: "The engine can't use a value",
    429: "The key's or the model's limit is reached",
    499: "It was aborted",
    500: "A defect, of ours or of the engine",
    501: "The engine does not do this",
    502: "The engine died before it answered",
    503: "The model is not ready yet, or has failed",
}
_SUMMARIES = {
    "/v1/chat/completions": "Chat",
    "/v1/completions": "Complete a text",
    "/v1/embeddings": "Vectors of texts",
    "/v1/responses": "OpenAI's responses",
    "/v1/messages": "Anthropic's messages",
    "/v1/messages/count_tokens": "Count the tokens of Anthropic's messages",
    "/anthropic/v1/messages": "Anthropic's messages, where their clients look for them below a base URL",
    "/anthropic/v1/messages/count_tokens": "Count the tokens of Anthropic's messages",
    "/v1/rerank": "Order documents by a query",
    "/rerank": "Order documents by a query, on a path without a version",
    "/v1/convert_ids_to_tokens": "The texts of token ids",
    "/tokenize": "The tokens of a text",
    "/detokenize": "The text of tokens",
    "/apply-template": "The prompt that a chat comes to",
    "/infill": "Fill in the middle of a text",
}


def _object(description: str, required: Mapping[str, str], **more: Any) -> Json:
    kinds = {name: {} if kind == "any" else {"type": kind} for name, kind in required.items()}
    return {"type": "object", "description": description, "required": list(required), "properties": kinds, **more}


#: What is promised of each answer; engines add fields.
_ANSWERS: dict[str, Json] = {
    "/v1/chat/completions": _object(
        "A chat completion", {"id": "string", "object": "string", "model": "string", "choices": "array"}
    ),
    "/v1/completions": _object(
        "A completion", {"id": "string", "object": "string", "model": "string", "choices": "array"}
    ),
    "/v1/embeddings": _object("Vectors", {"object": "string", "model": "string", "data": "array", "usage": "object"}),
    "/v1/responses": _object("A response", {"id": "string", "object": "string", "output": "array"}),
    "/v1/messages": _object("A message", {"id": "string", "type": "string", "role": "string", "content": "array"}),
    "/v1/messages/count_tokens": _object("A count", {"input_tokens": "integer"}),
    "/v1/rerank": _object("The documents in order", {"results": "array"}),
}
_OPENAI_ERROR = _object(
    "OpenAI's error; `detail` has its message once more",
    {"error": "object"},
    properties={
        "error": _object("What is wrong", {"message": "string", "type": "string", "param": "any", "code": "any"}),
        "detail": {"type": "string"},
    },
)
_ANTHROPIC_ERROR = _object(
    "Anthropic's error",
    {"type": "string", "error": "object"},
    properties={
        "type": {"const": "error"},
        "error": _object("What is wrong", {"type": "string", "message": "string"}),
    },
)
_MODEL = _object("A model", {"id": "string", "object": "string", "created": "integer", "owned_by": "string"})
_MODELS = _object("The models", {"object": "string", "data": "array"})
_MODELS["properties"]["data"]["items"] = _MODEL
_ANTHROPIC_MODEL = _object("A model", {"type": "string", "id": "string", "display_name": "string"})
_HEALTH = _object("It answers", {"status": "string"})


def document() -> Json:
    """``paths`` and ``components`` of every route that the gateway answers itself."""
    kinds = sorted({path.decoder.type for path in DATA_PATHS.values()}, key=lambda kind: str(kind.__name__))
    refs, shapes = msgspec.json.schema_components(kinds, ref_template=TEMPLATE)
    bodies = dict(zip(kinds, refs, strict=True))
    paths = {name: {"post": _operation(name, path, bodies[path.decoder.type])} for name, path in DATA_PATHS.items()}
    paths["/metrics"] = {"get": _metrics()}
    paths["/health"] = {"get": _reading("health", "Whether a server answers", _HEALTH, ())}
    paths["/v1/models"] = {"get": _reading("list_models", "The models that are ready", _MODELS, (401, 403))}
    paths["/anthropic/v1/models"] = {
        "get": _reading("list_anthropic_models", "The models, in Anthropic's form", {"type": "object"}, (401, 403))
    }
    uid = {"name": "model_uid", "in": "path", "required": True, "schema": {"type": "string"}}
    one = _reading("describe_anthropic_model", "One model, in Anthropic's form", _ANTHROPIC_MODEL, (401, 403, 404))
    paths["/anthropic/v1/models/{model_uid}"] = {"get": {**one, "parameters": [uid]}}
    schemas = {**shapes, "OpenAIError": _OPENAI_ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    return {"paths": paths, "components": {"schemas": schemas}}


def _operation(name: str, path: DataPath, body: Json) -> Json:
    error = "AnthropicError" if path.anthropic else "OpenAIError"
    answer = _ANSWERS.get(name) or _ANSWERS.get(path.upstream, {"description": "The engine's own answer"})
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
            **{str(status): _error(meaning, error) for status, meaning in _ERRORS.items()},
        },
    }
    if path.anthropic:
        schema = {"type": "string", "pattern": f"^{A_VERSION.pattern.decode()}$", "example": VERSION}
        operation["parameters"] = [{"name": "anthropic-version", "in": "header", "required": True, "schema": schema}]
    return operation


def _metrics() -> Json:
    operation = _reading("metrics", "Counts for Prometheus", {}, (401, 403))
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


def _error(meaning: str, name: str) -> Json:
    return {
        "description": meaning,
        "content": {"application/json": {"schema": {"$ref": TEMPLATE.format(name=name)}}},
    }
