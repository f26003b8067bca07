"""Create, list and revoke API keys."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import KeyringDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.keys.keyring import NewKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute, responses=ERROR_RESPONSES)

#: The largest integer that SQLite and all JSON parsers read exactly.
MAX_INTEGER = 2**53 - 1


class NewKeyBody(BaseModel):
    """The key to create."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="The name of the key, and the user name for `POST /token`")
    scopes: list[str] = Field(["use"], description="`use`, `manage` or both")
    models: list[str] | None = Field(None, description="The models that it may use, by uid or adapter; null: all")
    expires_in: float | None = Field(None, gt=0, le=MAX_INTEGER, description="Seconds from now; null: never")
    requests_per_minute: int | None = Field(None, ge=1, le=MAX_INTEGER)
    tokens_per_minute: int | None = Field(None, ge=1, le=MAX_INTEGER)
    requests_in_flight: int | None = Field(
        None,
        ge=1,
        le=MAX_INTEGER,
        description="Maximum number of requests at the same time; null: that of the settings",
    )

    def new_key(self) -> NewKey:
        """The key for the keyring."""
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
    requests_in_flight: int | None
    created: float
    last_used: float | None
    revoked: float | None


class CreatedKeyAnswer(KeyAnswer):
    """One key with its secret, which is shown only once."""

    key: str


@router.get("", response_model=list[KeyAnswer])
async def every(keys: KeyringDep) -> list[dict[str, Any]]:
    """List all keys, including revoked and expired ones, without their secrets."""
    return [key.to_dict() for key in keys.all()]


@router.post("", response_model=CreatedKeyAnswer, responses=problems(409, 413, 415))
async def create(keys: KeyringDep, body: NewKeyBody) -> dict[str, Any]:
    """Create a key. Once there is a key, every request needs one."""
    key, secret = keys.create(body.new_key())
    return {**key.to_dict(), "key": secret}


@router.delete("", response_model=dict[str, int])
async def forget_all(keys: KeyringDep) -> dict[str, int]:
    """Delete all keys. A server on loopback needs no keys then."""
    return {"removed": keys.remove_all()}


@router.delete("/{key_id}", response_model=KeyAnswer, responses=problems(404))
async def revoke(keys: KeyringDep, key_id: str) -> dict[str, Any]:
    """Revoke a key by its id or name. It stays in the list, and requests still need a key."""
    return keys.revoke(key_id).to_dict()
