"""What an engine says when it refuses, in the words that clients know."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from xinference.engines.llama_cpp import choices
from xinference.engines.llama_cpp.dialect import _checked_dimensions, name_stop
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

#: Most bytes read of an engine's error answer.
MAX_ERROR_BYTES = 64 * 1024
MAX_TEXT = 500

#: vLLM's and SGLang's words for a prompt that is too long; they have the numbers in them already.
TOO_LONG = re.compile(
    r"maximum context length is \d+|longer than the maximum model length|longer than the model's context length"
)
#: Where these name the prompt's tokens. Their own limit counts the first token of the answer, our promise does not.
GIVEN = re.compile(
    r"your prompt contains (?P<most>at least )?(?P<vllm>\d+)|The input \((?P<sglang>\d+) tokens\) is longer"
)
#: What vLLM says of a prompt that leaves not one token for the answer; the gateway lets no client ask for none.
NO_ROOM = re.compile(r"max_(?:completion_|output_)?tokens must be at least 1, got 0\b")
#: llama.cpp's words for an embedding or rerank input that is longer than its batch.
OVER_BATCH = re.compile(r"input \((\d+) tokens\) is too large to process.*?batch size: (\d+)", re.DOTALL)


#: llama.cpp's words for an image or a sound that is given to a model without a projector; it answers 500.
NO_MEDIA = re.compile(r"(?:image|audio|video) input is not supported")
#: llama.cpp's words, by way of its C++ library, for a token id that its vocabulary has not.
NO_SUCH_TOKEN = re.compile(r"vector::_M_range_check: .* >= this->size\(\) \(which is (\d+)\)")
#: llama.cpp's words before what a chat template's `raise_exception` says.
TEMPLATE_REFUSAL = "Jinja Exception: "


def normalise(
    status: int, body: bytes, *, prompt_field: str, context_length: int | None = None, retry_after: int = 5
) -> Refusal:
    """Read an engine's error answer.

    Args:
        status: the engine's HTTP status, 400 or more.
        body: its answer, or the beginning of it.
        prompt_field: the request's field that holds the prompt: ``messages``, ``prompt`` or ``input``.
        context_length: the model's context in tokens; None: what the engine says.
        retry_after: seconds to name in ``Retry-After`` if the engine is still loading.
    """
    error = _error(body)
    message = _message(error, body, status)
    if status == 401:
        # The key that was refused is the gateway's own: nothing the client sends could change that.
        return Refusal(
            "engine_refused_key", 502, "The engine refused the gateway's own key.", hint="Restart the model."
        )
    if status == 503:
        return Refusal("model_loading", 503, message, retry_after=retry_after)
    too_long = _context_message(error, message, context_length)
    if too_long is not None:
        return Refusal("context_length_exceeded", 400, too_long, param=prompt_field)
    no_token = NO_SUCH_TOKEN.search(message)
    if no_token is not None:
        cause = f"A token id is not in the model's vocabulary, which has {no_token[1]} tokens."
        return Refusal("invalid_token", 400, cause, param=prompt_field)
    if TEMPLATE_REFUSAL in message:
        said = message.rpartition(TEMPLATE_REFUSAL)[2].strip()
        return Refusal("invalid_messages", 400, f"The model's chat template refuses this: {said}", param=prompt_field)
    if NO_MEDIA.search(message):
        cause = f"The model was launched without what it takes to see or hear: {message}."
        return Refusal("unsupported_content", 400, cause, param=prompt_field)
    code, param = error.get("code"), error.get("param")
    return Refusal(
        code if isinstance(code, str) else None, status, message, param=param if isinstance(param, str) else None
    )


def _error(body: bytes) -> dict[str, Any]:
    """The part of the answer that describes the error, or an empty dict."""
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(answer, dict):
        return {}
    inner = answer.get("error", answer)
    return inner if isinstance(inner, dict) else {"message": inner}


def _message(error: dict[str, Any], body: bytes, status: int) -> str:
    """The engine's own text; FastAPI keeps it under ``detail``."""
    text = error.get("message") or error.get("detail")
    if isinstance(text, str):
        return text
    if text is not None:
        return msgspec.json.encode(text)[:MAX_TEXT].decode(errors="replace")
    return body[:MAX_TEXT].decode(errors="replace").strip() or f"The engine answered with status {status}."


def _context_message(error: dict[str, Any], message: str, context_length: int | None) -> str | None:
    """What to say of a prompt that is too long; None if it is another error."""
    if error.get("type") == "exceed_context_size_error":
        limit, tokens = context_length or error.get("n_ctx"), error.get("n_prompt_tokens")
        if not isinstance(limit, int) or not isinstance(tokens, int):
            return message
        return _too_long(limit, str(tokens))
    if context_length and NO_ROOM.search(message):
        return _too_long(context_length, str(context_length + 1))
    given = GIVEN.search(message)
    if context_length and given:
        return _too_long(context_length, (given["most"] or "") + (given["vllm"] or given["sglang"]))
    over = OVER_BATCH.search(message)
    if over:
        limit = min(context_length or int(over[2]), int(over[2]))
        return f"This model takes at most {limit} tokens an input, but the input has {over[1]} tokens. Shorten it."
    return message if TOO_LONG.search(message) else None


def _too_long(limit: int, given: str) -> str:
    return f"This model's maximum context length is {limit} tokens, but the prompt has {given} tokens. Shorten it."


Reshape = Callable[[bytes], bytes]


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
    if isinstance(request, Generation) and choices.concerns(route, request):
        return lambda body: choices.gather(body, request)
    return None


def tidy(route: Route, request: Request) -> Reshape | None:
    """What is done to a stream's events as they go by; None: nothing."""
    if not request.stream:
        return None
    if isinstance(request, Generation) and choices.concerns(route, request):
        events = choices.Events(request)
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
