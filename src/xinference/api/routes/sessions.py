"""The sessions of browsers: log in with a key or a code, read what the session permits, log out."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import KeyDep, KeyringDep, SettingsDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.login_delay import LoginDelay
from xinference.api.strict import StrictRoute
from xinference.error_codes import Code
from xinference.errors import Problem, bad_request
from xinference.keys.key import Key
from xinference.keys.keyring import OWNER, Keyring
from xinference.keys.session_cookie import PAGE_HEADER, set_cookie
from xinference.keys.sessions import CODE_SECONDS
from xinference.keys.visibility import FROM_OWNER

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/sessions", tags=["keys"], route_class=StrictRoute, responses=ERROR_RESPONSES)
SCOPES_WITHOUT_KEYS = ("use", "manage")
delay = LoginDelay()


class SessionLogin(BaseModel):
    """A key, or a code from `POST /v1/sessions/codes`."""

    model_config = ConfigDict(extra="forbid")

    key: str | None = Field(None, max_length=1024, description="The key")
    code: str | None = Field(None, max_length=1024, description="The code; it is valid once")


class Holder(BaseModel):
    """The permissions of a request: those of its key, or of the key with which its session has begun."""

    id: str | None = Field(description="The id of the key; null: the server needs no key")
    name: str | None
    scopes: list[str]
    models: list[str] | None = Field(description="The models that it may use; null: all")
    expires: float | None = Field(description="End of the session or the key, in seconds since the epoch")
    is_session: bool = Field(description="Whether the request has the cookie of a session")
    needs_key: bool = Field(description="Whether the server needs keys")


class LoginCode(BaseModel):
    """A code with which a browser logs in."""

    code: str
    expires_in: float = Field(description="Seconds")


async def _is_owner(request: Request) -> bool:
    """Whether the server's own user has sent the request."""
    return bool(request.scope.get(FROM_OWNER))


async def _check_header(request: Request) -> None:
    """Refuse a login that a page of another site causes: it would log the user in with a key of that site's choice."""
    name, value = (text.decode() for text in PAGE_HEADER)
    if request.headers.get(name) != value:
        raise Problem(
            Code.CROSS_SITE_REQUEST,
            "A login needs the header `X-Xinference: 1`, which pages of other sites cannot set.",
            hint="Programs need no session: send the key as `Authorization: Bearer KEY`.",
        )


@router.post("", response_model=Holder, responses=problems(401, 403, 413, 415), dependencies=[Depends(_check_header)])
async def begin(request: Request, keys: KeyringDep, settings: SettingsDep, body: SessionLogin) -> JSONResponse:
    """Begin a session of a key, and set its cookie. The header `X-Xinference: 1` is required."""
    if (body.key is None) == (body.code is None):
        raise bad_request("A login has a key or a code.", hint='Send {"key": …} or {"code": …}.')
    address = request.client.host if request.client is not None else ""
    await asyncio.sleep(delay.seconds(address))
    key = _find(keys, body)
    if key is None:
        delay.note_failure(address)
        log.warning("a login from %s failed: the %s is not valid", address or "?", "key" if body.key else "code")
        raise Problem(
            Code.WRONG_LOGIN,
            "This server does not know the key." if body.key is not None else "The code is used or has expired.",
            hint="`xinference web` opens the page with a new code; `xinference keys create` makes a key.",
        )
    secret = keys.sessions.begin(key)
    session = keys.table.find_session(secret.encode())
    # A page's script sends the page's own origin, which no proxy changes.
    is_tls = request.headers.get("origin", "").startswith("https://") or request.url.scheme == "https"
    cookie = set_cookie(settings.port, secret, max_age=settings.session_seconds, is_tls=is_tls)
    headers = {"Set-Cookie": cookie, "Cache-Control": "no-store"}
    return JSONResponse(_holder(session, keys), headers=headers)


def _find(keys: Keyring, login: SessionLogin) -> Key | None:
    """The key of a login; None: the login is wrong."""
    if login.code is not None:
        key_id = keys.sessions.redeem(login.code.encode("utf-8", "surrogatepass"))
        return None if key_id is None else keys.find_valid(key_id)
    key = keys.table.find((login.key or "").encode("utf-8", "surrogatepass"))
    return key if key is not None and (key.expires is None or key.expires > time.time()) else None


@router.get("/current", response_model=Holder)
async def current(keys: KeyringDep, holder: KeyDep) -> dict[str, Any]:
    """Read what the key or the session of this request permits."""
    return _holder(holder, keys)


@router.delete("/current", response_model=dict[str, bool])
async def end(keys: KeyringDep, holder: KeyDep, settings: SettingsDep) -> JSONResponse:
    """End the session of this request, and remove its cookie."""
    if holder is not None and holder.session:
        keys.sessions.end(holder.session)
    cookie = set_cookie(settings.port, "", max_age=0, is_tls=False)
    return JSONResponse({"ended": bool(holder is not None and holder.session)}, headers={"Set-Cookie": cookie})


@router.post("/codes", response_model=LoginCode)
async def create_code(keys: KeyringDep, holder: KeyDep, is_owner: Annotated[bool, Depends(_is_owner)]) -> JSONResponse:
    """Make a code that begins one session of the key of this request, within a minute."""
    own = OWNER if is_owner else ""
    key = keys.find_valid(own if holder is None else holder.key_id)
    if key is None:
        raise Problem(
            Code.PERMISSION_DENIED,
            "Not enough permissions: a code needs a key, and this request has none.",
            hint="Without keys, everybody who reaches the server may use the page.",
        )
    body = {"code": keys.sessions.new_code(key), "expires_in": CODE_SECONDS}
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


def _holder(key: Key | None, keys: Keyring) -> dict[str, Any]:
    needs_key = keys.table.required
    if key is None:
        scopes = sorted(SCOPES_WITHOUT_KEYS)
        return {"id": None, "name": None, "scopes": scopes, "models": None, "expires": None} | {
            "is_session": False,
            "needs_key": needs_key,
        }
    return {
        "id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "expires": key.expires,
        "is_session": bool(key.session),
        "needs_key": needs_key,
    }
