"""Answers that refuse a request."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.errors import Problem
from xinference.gateway.http.asgi import Reply
from xinference.protocol.errors import Refusal, anthropic_error, openai_error


async def refuse(reply: Reply, problem: Problem) -> None:
    """Answer with `problem`, in the envelope of the path that was asked."""
    message = str(problem)
    param, headers = (problem.param, problem.headers) if isinstance(problem, Refusal) else (None, ())
    if reply.anthropic:
        body = anthropic_error(problem.status, message)
    else:
        body = openai_error(problem.status, message, problem.code, param)
    await reply.whole(problem.status, body, headers)


async def refuse_management(reply: Reply, problem: Refusal, *, openai: bool) -> None:
    """Answer for the management API, in its own form; with `openai` in OpenAI's as well, for a path of both."""
    document: dict[str, Any] = {"detail": str(problem), "problem": problem.to_dict()}
    if openai:
        document |= msgspec.json.decode(openai_error(problem.status, str(problem), problem.code, problem.param))
    await reply.whole(problem.status, msgspec.json.encode(document), problem.headers)
