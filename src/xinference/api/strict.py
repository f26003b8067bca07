"""Checks on requests before a route reads them: standard JSON, text that can be stored, bodies of limited size."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn
from urllib.parse import unquote

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from xinference.api.errors import problem_response
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

#: Maximum size of a body on management routes, in bytes; the largest bodies are model registrations.
MAX_BODY = 8 * 1024 * 1024


class StrictRequest(Request):
    """A request whose body has a maximum size, and whose JSON has no NaN and no text that can't be stored."""

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            Problem: 413 if it is too large.
        """
        if not hasattr(self, "_body"):
            pieces, size = [], 0
            async for piece in self.stream():
                size += len(piece)
                if size > MAX_BODY:
                    raise Problem(Code.REQUEST_TOO_LARGE, f"The body may have at most {MAX_BODY} bytes.")
                pieces.append(piece)
            self._body = b"".join(pieces)
        return self._body

    async def json(self) -> Any:
        """The value of the body.

        Raises:
            Problem: 400 with the reason.
        """
        if not hasattr(self, "_json"):
            try:
                value = json.loads(await self.body(), parse_constant=_no_number, parse_float=_finite)
            except (ValueError, RecursionError) as error:
                raise bad_request(f"The body is not valid JSON: {error}.", code=Code.INVALID_JSON) from None
            _check_text(value)
            self._json = value
        return self._json


class StrictRoute(APIRoute):
    """A route whose requests are `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            request = StrictRequest(request.scope, request.receive)
            _check_encoding(request.headers.get("content-encoding", ""))
            if self.body_field is not None and await request.body():
                _check_type(request.headers.get("content-type", ""))
                await request.json()  # read here, because FastAPI sends the same answer for every failure
            return await handler(request)

        return strict


class NulCheck:
    """Rejects a path or a query with a NUL character before it is routed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query = unquote(scope["query_string"].decode("latin-1"))
            if "\0" in scope["path"] or "\0" in query:
                refusal = problem_response(bad_request("The path or the query contains a NUL character."))
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _check_encoding(encoding: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE,
            f"The content encoding {encoding[:40]!r} is not supported here.",
            hint="Send the body without an encoding.",
        )


def _check_type(content_type: str) -> None:
    # Browsers send JSON to another origin only after a preflight request, and other types without one.
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(
            Code.UNSUPPORTED_MEDIA_TYPE, f"The content type must be application/json, not {content_type[:100]!r}."
        )


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _check_text(value: Any) -> None:
    """Reject text with half a surrogate pair or a NUL character, at any depth."""
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            waiting += [*current.keys(), *current.values()]
        elif isinstance(current, list):
            waiting += current
        elif isinstance(current, str) and (bad := _bad_character(current)):
            raise bad_request(f"The body contains a text with {bad}: {current[:100]!r}.", code=Code.INVALID_JSON)


def _bad_character(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half of a surrogate pair"
    return None
