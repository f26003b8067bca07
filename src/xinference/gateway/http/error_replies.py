"""Error replies of the data path, of the management API, and to bytes that are not a request."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.gateway.http.asgi import Reply
from xinference.protocol.errors import Header, Refusal, anthropic_error, openai_error


async def refuse(reply: Reply, problem: Problem) -> None:
    """Send `problem` in the error envelope of the requested path: OpenAI's or Anthropic's."""
    message = str(problem)
    param, headers = (problem.param, problem.headers) if isinstance(problem, Refusal) else (None, ())
    if reply.anthropic:
        # Anthropic's form has no code. A stop of the server is told by its code in every form.
        stop = problem.code if problem.code == Code.SERVER_STOPPING else None
        body = anthropic_error(problem.status, message, stop)
    else:
        body = openai_error(problem.status, message, problem.code, param)
    await reply.whole(problem.status, body, headers)


async def refuse_management(reply: Reply, problem: Refusal, *, openai: bool) -> None:
    """Send `problem` in the management API's form; with `openai`, for a path of both APIs, in OpenAI's form too."""
    await reply.whole(problem.status, _management_error(problem, openai=openai), problem.headers)


def raw_answer(problem: Refusal, headers: Iterable[Header]) -> bytes:
    """A refusal of bytes that are not a request, as bytes; in the forms of both APIs, with `connection: close`."""
    body = _management_error(problem, openai=True)
    lines = [
        b"HTTP/1.1 %d %b" % (problem.status, HTTPStatus(problem.status).phrase.encode()),
        *(b"%b: %b" % header for header in (*headers, *problem.headers)),
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]
    return b"\r\n".join((*lines, b"", body))


def _management_error(problem: Refusal, *, openai: bool) -> bytes:
    document: dict[str, Any] = {"detail": str(problem), "problem": problem.to_dict()}
    if openai:
        document |= msgspec.json.decode(openai_error(problem.status, str(problem), problem.code, problem.param))
    return msgspec.json.encode(document)
