"""The engine's answer in the clients' form: rewrites of whole answers and of events, and refusals from errors."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from xinference.engines.dialect import BytesRewrite, EngineError, Exchange
from xinference.engines.dialects import dialect_of
from xinference.error_codes import Code
from xinference.gateway.choice_order import ChoiceOrder
from xinference.gateway.legacy_functions import answer_with_function, events_with_function
from xinference.protocol import exact_requests
from xinference.protocol.errors import Refusal
from xinference.protocol.field_types import is_on
from xinference.protocol.requests import (
    Chat,
    Request,
    Rerank,
    text_of,
)
from xinference.routing.table import Route

#: Maximum number of bytes that are read of an engine's error answer.
MAX_ERROR_BYTES = 64 * 1024
MAX_TEXT = 500
#: The errors of a rewrite whose answer has another form than the engine's answers should have.
ODD_ANSWER = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
#: Statuses without a body: no request to an engine has such an answer.
_WITHOUT_BODY = frozenset({204, 205})
FILLED_END = b'"delta":{"content":""}'
BARE_BEGIN = b'"delta":{"role":"assistant","content":null}'
FILLED_BEGIN = b'"delta":{"role":"assistant","content":""}'

# -- answers ----------------------------------------------------------------------------------------------------


def answer_rewrite(request: Request, uid: str, exchange: Exchange) -> BytesRewrite | None:
    """The rewrite of the answer's whole body; None: its bytes are passed on as they arrive."""
    if type(request) is exact_requests.Chat and not request.functions:  # most requests: a check of a base costs more
        return None if request.stream else exchange.answer
    if isinstance(request, Rerank):
        return lambda body: rerank_answer(body, uid, request)
    if request.stream:
        return None
    return chained(exchange.answer, answer_with_function) if _has_functions(request) else exchange.answer


def events_rewrite(request: Request, exchange: Exchange) -> BytesRewrite | None:
    """The rewrite of a stream's complete events; None: they are passed on unchanged."""
    if not request.stream:
        return None
    rewrite = exchange.events
    if not isinstance(request, Chat):
        return rewrite
    if request.functions:
        rewrite = chained(rewrite, events_with_function)
    if request.n is not None and request.n > 1:
        rewrite = chained(rewrite, ChoiceOrder(request.n))
    return fill_deltas if rewrite is None else lambda chunk: rewrite(fill_deltas(chunk))


def chained(first: BytesRewrite | None, second: BytesRewrite) -> BytesRewrite:
    """A rewrite that applies `first`, if there is one, and then `second`."""
    return second if first is None else lambda chunk: second(first(chunk))


def _has_functions(request: Request) -> bool:
    return isinstance(request, Chat) and bool(request.functions)


def fill_deltas(chunk: bytes) -> bytes:
    """Add an empty ``content`` to a chat's first and last delta where the engine sends none.

    Clients of Xinference concatenate ``delta["content"]``. The text of an answer cannot contain the replaced bytes,
    because its quotes are escaped.
    """
    return chunk.replace(b'"delta":{}', FILLED_END).replace(BARE_BEGIN, FILLED_BEGIN)


def rerank_answer(body: bytes, uid: str, request: Rerank) -> bytes:
    """Convert a rerank answer to Cohere's form, which clients of Xinference read, and add the engine's ``usage``."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    total = (answer.get("usage") or {}).get("total_tokens", 0)
    tokens = {"input_tokens": total, "output_tokens": 0} if is_on(request.return_len) else None
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
                "tokens": tokens,
                "warnings": None,
            },
            # Older versions of RAGFlow read the tokens here.
            **({"tokens": tokens} if tokens else {}),
            "usage": answer.get("usage"),
        }
    )


def _result(result: dict[str, Any], request: Rerank) -> dict[str, Any]:
    index: int = result["index"]
    entry = {"index": index, "relevance_score": result["relevance_score"]}
    if is_on(request.return_documents):
        entry["document"] = {"text": text_of(request.documents[index], f"documents[{index}]")}
    return entry


# -- errors -----------------------------------------------------------------------------------------------------


def check_status(uid: str, status: int) -> None:
    """Refuse a status that no answer of an engine should have.

    Raises:
        Refusal: 502.
    """
    if not (200 <= status < 300 or 400 <= status < 600) or status in _WITHOUT_BODY:
        raise odd_answer(uid, f"with the status {status}")


def odd_answer(uid: str, how: str) -> Refusal:
    """The refusal for an answer that cannot be used; `how` completes "The engine answered"."""
    hint = "Look into the log of the engine."
    return Refusal(Code.ENGINE_ERROR, f"The engine of model {uid!r} answered {how}.", hint=hint)


def rewritten(rewrite: BytesRewrite, body: bytes, uid: str) -> bytes:
    """The whole answer of an engine after its rewrite.

    Raises:
        Refusal: 502, the answer has another form than the engine's answers should have.
    """
    try:
        return rewrite(body)
    except ODD_ANSWER as error:
        raise odd_answer(uid, f"in a form that cannot be read: {type(error).__name__}") from error


def read_error(route: Route, status: int, body: bytes, prompt_field: str, request: bytes = b"") -> Refusal:
    """Read an engine's error answer.

    Args:
        status: the engine's HTTP status, 400 or more.
        body: its answer, or the first bytes of it.
        prompt_field: the request's field with the prompt: ``messages``, ``prompt`` or ``input``.
        request: what the engine got, if its fields have the client's names.
    """
    error = _error(body)
    message = _message(error, body, status)
    if status == 401:
        # The refused key is that of the gateway, so a change of the client's request would have no effect.
        return Refusal(Code.ENGINE_REFUSED_KEY, "The engine refused the gateway's own key.", hint="Restart the model.")
    if status == 503:
        return Refusal(Code.MODEL_LOADING, message, retry_after=route.retry_after)
    said = EngineError(error, message, prompt_field, route.context_length, request)
    explained = dialect_of(route.engine).explain(said)
    if explained is not None:
        return explained
    code, param = error.get("code"), error.get("param")
    if not isinstance(code, str):
        code = Code.INVALID_REQUEST if status == 400 else None
    return Refusal(code, message, status=status, param=param if isinstance(param, str) else None)


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
    """The engine's own text; FastAPI sends it as ``detail``."""
    text = error.get("message") or error.get("detail")
    if isinstance(text, str):
        return text
    if text is not None:
        return msgspec.json.encode(text)[:MAX_TEXT].decode(errors="replace")
    return body[:MAX_TEXT].decode(errors="replace").strip() or f"The engine answered with status {status}."
