"""How a `Problem` leaves the management API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from xinference.errors import Problem
from xinference.keys.visibility import for_holder, key_of


class ProblemParts(BaseModel):
    """A failure with its cause and the way out."""

    code: str
    status: int
    stage: str | None
    cause: str
    hint: str | None
    log_tail: list[str]


class ProblemBody(BaseModel):
    """`detail` is what clients of older versions read; `problem` has the parts."""

    detail: str
    problem: ProblemParts


#: Where the OpenAPI document has it.
_BODY = {"application/json": {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}


Responses = dict[int | str, dict[str, Any]]
_MEANINGS = {
    400: "What was asked can't be done as it is, and why",
    401: "A key is needed, or this one is not known",
    403: "The key may not do this, or the request comes from another site",
    404: "There is no such thing; the near ones are named",
    405: "The path takes another method",
    409: "It can't be done now, and what stands in the way",
    413: "The body is too large",
    415: "The body is not JSON by its content type",
    429: "The key's or the model's limit is reached",
    499: "It was cancelled meanwhile",
    500: "A defect, or something that this machine refused; the server's log says more",
    502: "A hub or an engine gave an answer that is of no use",
    503: "An engine or a hub is not there, or not yet",
    504: "A hub did not answer in time",
    507: "The disk is full",
}


def problems(*statuses: int) -> Responses:
    """The error answers that a route may give, for the OpenAPI document."""
    return {status: {"description": _MEANINGS[status], "content": _BODY} for status in sorted(statuses)}


#: What every route may answer: its input is wrong, its key is, or we are.
ERROR_RESPONSES: Responses = problems(400, 401, 403, 500)


def problem_response(problem: Problem) -> JSONResponse:
    headers = {"Retry-After": "5"} if problem.status == 503 else None
    return JSONResponse({"detail": str(problem), "problem": problem.to_dict()}, problem.status, headers)


INTERNAL = Problem(
    "internal_error", 500, "A defect in xinference.", hint="The server's log has the details; please report them."
)


def install(app: FastAPI) -> None:
    """Give every error the same form."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, problem: Problem) -> JSONResponse:
        # Its hint names the models that run, and not every key may know of all.
        if problem.code == "model_not_found" and request.url.path.startswith("/v1/models/"):
            problem = for_holder(key_of(request.scope), problem)
        return problem_response(problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return problem_response(Problem("invalid_request", 400, f"{where}: {first['msg']}."))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        cause = f"{request.method} {request.url.path}: {error.detail}."
        return problem_response(Problem("http_error", error.status_code, cause, hint="See /docs for what there is."))

    @app.exception_handler(Exception)
    async def on_defect(request: Request, error: Exception) -> JSONResponse:
        return problem_response(INTERNAL)  # Starlette logs the error itself
