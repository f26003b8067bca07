"""How a `Problem` leaves the management API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from xinference.errors import Problem


class ProblemBody(BaseModel):
    """`detail` is what clients of older versions read; `problem` has the parts."""

    detail: str
    problem: dict[str, Any]


#: The error answers that every route may give, for the OpenAPI document.
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemBody, "description": "What was asked can't be done, and why"},
    "5XX": {"model": ProblemBody, "description": "What failed, and why"},
}


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
