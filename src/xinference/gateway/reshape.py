"""Whole answers of engines in the form that Xinference's clients read, where the two differ."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from xinference.gateway import several
from xinference.protocol.errors import Refusal
from xinference.protocol.requests import (
    AnthropicMessages,
    Chat,
    Embeddings,
    Generation,
    Request,
    Rerank,
    Responses,
    text_of,
)
from xinference.routing.table import Route

Reshape = Callable[[bytes], bytes]
FLOAT_BYTES = 4
FILLED_END = b'"delta":{"content":""}'
BARE_BEGIN = b'"delta":{"role":"assistant","content":null}'
FILLED_BEGIN = b'"delta":{"role":"assistant","content":""}'


def reshape(route: Route, request: Request) -> Reshape | None:
    """What is done to the answer's whole body; None: nothing, and it goes on as it comes."""
    if isinstance(request, Rerank):
        return lambda body: rerank_answer(body, route.uid, request)
    if route.engine != "llama.cpp" or request.stream:
        return None
    if isinstance(request, Embeddings) and request.dimensions:
        wanted = request.dimensions
        return lambda body: _checked_dimensions(body, wanted, route.uid)
    if isinstance(request, AnthropicMessages) and request.stop_sequences:
        return name_stop
    if isinstance(request, Generation) and several.concerns(route, request):
        return lambda body: several.gather(body, request)
    return None


def tidy(route: Route, request: Request) -> Reshape | None:
    """What is done to a stream's events as they go by; None: nothing."""
    if not request.stream:
        return None
    if isinstance(request, Generation) and several.concerns(route, request):
        events = several.Events(request)
        return lambda chunk: events(fill_deltas(chunk))
    if isinstance(request, Chat):
        return fill_deltas
    if isinstance(request, AnthropicMessages) and request.stop_sequences:
        return name_stop
    if isinstance(request, Responses):
        begun = b'"object":"response",'
        named = begun + b'"model":%b,' % msgspec.json.encode(route.uid)
        return lambda chunk: chunk.replace(begun + b'"status"', named + b'"status"')
    return None


def fill_deltas(chunk: bytes) -> bytes:
    """Put an empty text where llama.cpp leaves a chat's delta without one, at its beginning and end.

    Clients of Xinference add up ``delta["content"]``. No text can hold what is replaced: its quotes would be escaped.
    """
    return chunk.replace(b'"delta":{}', FILLED_END).replace(BARE_BEGIN, FILLED_BEGIN)


def name_stop(chunk: bytes) -> bytes:
    """llama.cpp names the stop sequence, and still says that the turn has ended by itself."""
    ended, stopped = (b'"stop_reason":"%b","stop_sequence":"' % reason for reason in (b"end_turn", b"stop_sequence"))
    return chunk.replace(ended, stopped)


def rerank_answer(body: bytes, uid: str, request: Rerank) -> bytes:
    """Cohere's form, which Xinference has: ``id``, ``results`` and ``meta``; the engine's ``usage`` stays beside it."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    tokens = (answer.get("usage") or {}).get("total_tokens", 0)
    results = sorted(answer.get("results") or [], key=lambda result: -result["relevance_score"])
    return msgspec.json.encode(
        {
            "id": answer.get("id") or f"rerank-{uuid.uuid4().hex}",
            "object": "list",
            "model": uid,
            "results": [_result(result, request) for result in results],
            "meta": {
                "api_version": None,
                "billed_units": None,
                "tokens": {"input_tokens": tokens, "output_tokens": 0} if request.return_len else None,
                "warnings": None,
            },
            "usage": answer.get("usage"),
        }
    )


def _result(result: dict[str, Any], request: Rerank) -> dict[str, Any]:
    index: int = result["index"]
    kept = {"index": index, "relevance_score": result["relevance_score"]}
    if request.return_documents:
        kept["document"] = {"text": text_of(request.documents[index], f"documents[{index}]")}
    return kept


def _checked_dimensions(body: bytes, wanted: int, uid: str) -> bytes:
    """llama.cpp gives a model's own vectors, whatever length is asked for."""
    data = msgspec.json.decode(body)["data"]
    vector = data[0]["embedding"] if data else []
    has = len(base64.b64decode(vector)) // FLOAT_BYTES if isinstance(vector, str) else len(vector)
    if has == wanted:
        return body
    cause = f"The model {uid!r} gives vectors of {has} numbers on llama.cpp, not {wanted}."
    raise Refusal("unsupported_dimensions", 400, cause, hint="Leave dimensions out.", param="dimensions")
