"""``POST /token``: logging in with the name of a key and the key, as clients of older versions do."""

from __future__ import annotations

import hmac
import json
import time
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from xinference.api.dependencies import KeyringDep
from xinference.api.errors import problem_response, problems
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request

router = APIRouter(tags=["keys"])
#: Maximum size of a body, in bytes. Small, because this route needs no key.
MAX_BYTES = 16 * 1024


class Login(BaseModel):
    """The name of a key, and the key."""

    username: str = Field(description="The name or id of the key")
    password: str = Field(description="The key")


class TokenAnswer(BaseModel):
    """The token is the key itself: revoking the key ends it at once, and it needs no refresh."""

    access_token: str
    token_type: str
    refresh_token: str


_FORMS = {
    form: {"schema": Login.model_json_schema()} for form in ("application/json", "application/x-www-form-urlencoded")
}


@router.post(
    "/token",
    response_model=TokenAnswer,
    responses=problems(400, 401, 403, 413, 500),
    openapi_extra={"requestBody": {"required": True, "content": _FORMS}},
)
async def token(request: Request, keys: KeyringDep) -> JSONResponse:
    """Log in with the name of a key and the key; send the token as ``Authorization: Bearer``."""
    login = read_login(await _read(request), request.headers.get("content-type", ""))
    key = keys.table.find(_bytes(login.password))
    names = () if key is None else (key.name, key.key_id)
    right = any(hmac.compare_digest(_bytes(login.username), name.encode()) for name in names)
    if key is None or not right or (key.expires is not None and key.expires <= time.time()):
        answer = problem_response(Problem(Code.WRONG_LOGIN, "Incorrect username or password"))
        answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
    return JSONResponse(
        {"access_token": login.password, "token_type": "bearer", "refresh_token": login.password},
        headers={"Cache-Control": "no-store"},
    )


def read_login(body: bytes, content_type: str) -> Login:
    """The login in a JSON body, or in a form as in OAuth2's password flow.

    Raises:
        Problem: 400 with the missing field.
    """
    try:
        if content_type.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
            value: Any = {name: values[-1] for name, values in parse_qs(body.decode(), max_num_fields=20).items()}
        else:
            value = json.loads(body)
    except (ValueError, RecursionError):
        raise bad_request("The body is neither JSON nor a form.") from None
    fields = value if isinstance(value, dict) else {}
    username, password = fields.get("username"), fields.get("password")
    if not isinstance(username, str) or not isinstance(password, str):
        missing = "username" if not isinstance(username, str) else "password"
        raise bad_request(f"{missing} is missing or is not a text.", hint="Log in with the name of a key and the key.")
    return Login(username=username, password=password)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can escape half a character


async def _read(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            raise Problem(Code.REQUEST_TOO_LARGE, f"The body may have at most {MAX_BYTES} bytes.")
    return body
