"""Completes the answers of ``/tokenize`` and ``/detokenize`` with the fields of every client."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from xinference.engines.dialect import BytesRewrite
from xinference.gateway.engine_requests import EngineCall
from xinference.protocol.requests import Request, Tokenize
from xinference.routing.table import Route


def with_token_answer(call: EngineCall, request: Request, route: Route) -> EngineCall:
    """The call with the rewrite that completes its answer."""
    rewrite: BytesRewrite
    if isinstance(request, Tokenize):
        has_strings = bool(request.return_token_strs)
        rewrite = partial(complete_tokens, context_length=route.context_length, has_strings=has_strings)
    else:
        rewrite = complete_text
    return msgspec.structs.replace(call, answer=rewrite)


def complete_tokens(body: bytes, *, context_length: int | None, has_strings: bool) -> bytes:
    """Add the number of tokens and the model's context; with `has_strings` split tokens into ids and texts."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    tokens = answer["tokens"]
    if has_strings and tokens and isinstance(tokens[0], dict):
        answer["token_strs"] = [_piece(token["piece"]) for token in tokens]
        answer["tokens"] = [token["id"] for token in tokens]
    answer.setdefault("count", len(tokens))
    if context_length is not None:
        answer.setdefault("max_model_len", context_length)
    return msgspec.json.encode(answer)


def complete_text(body: bytes) -> bytes:
    """Add the text of token ids under the name of each engine."""
    answer: dict[str, Any] = msgspec.json.decode(body)
    text = answer[next((name for name in ("content", "prompt", "text") if name in answer), "content")]
    return msgspec.json.encode({**answer, "content": text, "prompt": text})


def _piece(piece: Any) -> str:
    """The text of a token; an engine sends a list of bytes where they are not UTF-8."""
    return piece if isinstance(piece, str) else bytes(piece).decode(errors="replace")
