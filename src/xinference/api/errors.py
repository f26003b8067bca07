"""The error responses of the management API: every failure is a `Problem` in JSON."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from xinference.api.invalid_body import invalid_body
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.keys.visibility import for_holder, key_of
from xinference.protocol.errors import openai_error_object


class SuggestionParts(BaseModel):
    """One change of a refused request with which it would be accepted, as a command line."""

    change: str
    description: str
    command: str


class ProblemParts(BaseModel):
    """A failure: its cause, and a hint for its solution."""

    code: str
    status: int
    stage: str | None
    cause: str
    hint: str | None
    log_tail: list[str]
    suggestions: list[SuggestionParts]


class ProblemBody(BaseModel):
    """An error: `problem` has its parts; `detail` is the text that clients of older versions read."""

    detail: str
    problem: ProblemParts


#: The reference to `ProblemBody` in the OpenAPI document.
_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}


Responses = dict[int | str, dict[str, Any]]
_DESCRIPTIONS = {
    400: "The request is not valid; the cause has the reason",
    401: "A key is required, or the given one is unknown",
    403: "The key does not permit this, or the request comes from another site",
    404: "Not found; similar names are listed",
    405: "The path does not support this method",
    409: "A conflict with the present state; the cause names it",
    413: "The body is too large",
    415: "The content type is not JSON",
    429: "The limit of the key or the model is reached",
    499: "Cancelled before it was complete",
    500: "A defect, or an error of the operating system; see the server's log",
    502: "A hub or an engine sent an invalid answer",
    503: "An engine or a hub is not available, or not yet",
    504: "A hub did not answer in time",
    507: "The disk is full",
}


def problems(*statuses: int) -> Responses:
    """The error responses of a route, for the OpenAPI document."""
    return {status: {"description": _DESCRIPTIONS[status], "content": _BODY} for status in sorted(statuses)}


#: The errors of every route: invalid input, a wrong key, a defect.
ERROR_RESPONSES: Responses = problems(400, 401, 403, 500)


#: Paths of OpenAI's API; its clients read errors in OpenAI's form only.
OPENAI_PATHS = (
    "/v1/models", "/v1/images", "/v1/audio", "/v1/moderations", "/v1/files", "/v1/batches", "/v1/fine_tuning",
    "/v1/uploads", "/v1/assistants", "/v1/threads", "/v1/vector_stores", "/v1/realtime", "/v1/videos",
    "/v1/conversations", "/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/engines",
)  # fmt: skip


def problem_response(problem: Problem, path: str = "", *, openai: bool = False) -> JSONResponse:
    """The error answer; for a path of OpenAI's API, and with `openai`, it has OpenAI's form, too."""
    headers = {"Retry-After": "5"} if problem.status == 503 else None
    document: dict[str, Any] = {"detail": str(problem), "problem": problem.to_dict()}
    if openai or path.startswith(OPENAI_PATHS):
        document["error"] = openai_error_object(problem.status, str(problem), problem.code)
    return JSONResponse(document, problem.status, headers)


INTERNAL = Problem(
    Code.INTERNAL_ERROR, "A defect in xinference.", hint="The server's log has the details; please report it."
)


def install(app: FastAPI) -> None:
    """Turn every error into a `Problem` in JSON."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        # The hint lists running models, and not every key may see all of them.
        if problem.code == Code.MODEL_NOT_FOUND and request.url.path.startswith("/v1/models/"):
            problem = for_holder(key_of(request.scope), problem)
        return problem_response(problem, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(Problem(Code.INVALID_REQUEST, invalid_body(error.errors(), error.body)))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            return _wrong_method(request)
        if error.status_code == 404 and (named := _MODEL.fullmatch(f"{request.method} {request.url.path}")):
            return problem_response(_no_such_model(named["name"]), request.url.path)
        cause = f"{request.method} {request.url.path}: {error.detail}."
        problem = Problem(Code.HTTP_ERROR, cause, status=error.status_code, hint="See /docs for the routes.")
        return problem_response(problem, request.url.path, openai=request.url.path.startswith("/v1/"))

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> JSONResponse:
        return problem_response(INTERNAL)  # Starlette logs the error itself


#: What clients ask for a model whose name has a slash, such as the name of a repository.
_MODEL = re.compile(r"(?:GET|HEAD|DELETE) /v1/models/(?P<name>[^/]+/.+)", re.DOTALL)


def _no_such_model(name: str) -> Problem:
    return Problem(
        Code.MODEL_NOT_FOUND,
        f"There is no running model {name[:200]!r}.",
        hint="GET /v1/models lists the running models; no name has a slash.",
    )


_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def _wrong_method(request: Request) -> JSONResponse:
    """The answer to a method that no route of the path has, with those that it has."""
    routes, scope = request.app.routes, request.scope
    methods = [
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    if "GET" in methods:
        methods.append("HEAD")  # answered like GET
    names = ", ".join(sorted(methods))
    problem = Problem(
        Code.METHOD_NOT_ALLOWED,
        f"{request.url.path[:200]} accepts {names}, not {request.method}.",
        hint="See /docs for the routes.",
    )
    response = problem_response(problem, request.url.path, openai=request.url.path.startswith("/v1/"))
    response.headers["Allow"] = names
    return response
