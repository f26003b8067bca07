"""Make, list and revoke the API's keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import keyring_of
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.keys.keyring import NewKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute, responses=ERROR_RESPONSES)

#: The largest integer that SQLite and JSON's readers agree on.
MOST = 2**53 - 1


class NewKeyBody(BaseModel):
    """What a key is to be."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="What its owner calls it, and the user name of `POST /token`.")
    scopes: list[str] = Field(["use"], description="`use`, `manage` or both.")
    models: list[str] | None = Field(None, description="The models it may ask, by uid or adapter; null: all.")
    expires_in: float | None = Field(None, gt=0, le=MOST, description="Seconds from now; null: never.")
    requests_per_minute: int | None = Field(None, ge=1, le=MOST)
    tokens_per_minute: int | None = Field(None, ge=1, le=MOST)

    def wanted(self) -> NewKey:
        """The same for the keyring."""
        fields = self.model_dump()
        models = None if self.models is None else tuple(self.models)
        return NewKey(**fields | {"scopes": tuple(self.scopes), "models": models})


class KeyAnswer(BaseModel):
    """One key. Times are seconds since the epoch."""

    id: str
    name: str
    scopes: list[str]
    models: list[str] | None
    expires: float | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created: float
    last_used: float | None
    revoked: float | None


class CreatedKeyAnswer(KeyAnswer):
    """One key, this once with the key itself."""

    key: str


@router.get("", response_model=list[KeyAnswer])
async def every(request: Request) -> list[dict[str, Any]]:
    """Every key, also the revoked and expired ones; never the keys themselves."""
    return [key.to_dict() for key in keyring_of(request).all()]


@router.post("", response_model=CreatedKeyAnswer, responses=problems(409, 413, 415))
async def create(request: Request, body: NewKeyBody) -> dict[str, Any]:
    """Make a key. From the first one on, every request needs one."""
    key, secret = keyring_of(request).create(body.wanted())
    return {**key.to_dict(), "key": secret}


@router.delete("", response_model=dict[str, int])
async def forget_all(request: Request) -> dict[str, int]:
    """Remove every key, also from the list: a server on loopback is open again."""
    return {"removed": keyring_of(request).remove_all()}


@router.delete("/{key_id}", response_model=KeyAnswer, responses=problems(404))
async def revoke(request: Request, key_id: str) -> dict[str, Any]:
    """End a key, by its id or name. It stays in the list, and requests go on needing a key."""
    return keyring_of(request).revoke(key_id).to_dict()
