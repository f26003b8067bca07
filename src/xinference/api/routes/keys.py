"""Create, list and revoke API keys."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from xinference.api.dependencies import ControllerDep, KeyringDep
from xinference.api.errors import ERROR_RESPONSES, problems
from xinference.api.strict import StrictRoute
from xinference.control.controller import Controller
from xinference.keys.key import Key
from xinference.keys.new_key import NewKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute, responses=ERROR_RESPONSES)

#: The largest integer that SQLite and all JSON parsers read exactly.
MAX_INTEGER = 2**53 - 1


class NewKeyBody(BaseModel):
    """The key to create."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="The name of the key, and the user name for `POST /token`")
    scopes: list[str] = Field(["use"], description="`use`, `manage` and `monitor`, one or several")
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
    max_output_tokens: int | None = Field(
        None, ge=1, le=MAX_INTEGER, description="Maximum number of tokens of each answer; null: no limit"
    )
    max_request_seconds: float | None = Field(
        None, gt=0, le=MAX_INTEGER, description="Maximum time that an engine spends on one request; null: no limit"
    )
    priority: Literal["high", "normal", "low"] = Field(
        "normal", description="The priority of its requests before the engines; a request may name a lower one"
    )

    def new_key(self) -> NewKey:
        """The key for the keyring."""
        fields = self.model_dump()
        models = None if self.models is None else tuple(self.models)
        return NewKey(**fields | {"scopes": tuple(self.scopes), "models": models})


class KeyChanges(BaseModel):
    """The fields of a key to change; fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", description="The new name of the key")
    scopes: list[str] = []
    models: list[str] | None = Field(None, description="The models that it may use; null: all")
    expires_in: float | None = Field(None, gt=0, le=MAX_INTEGER, description="Seconds from now; null: never")
    requests_per_minute: int | None = Field(None, ge=1, le=MAX_INTEGER, description="null: no limit")
    tokens_per_minute: int | None = Field(None, ge=1, le=MAX_INTEGER, description="null: no limit")
    requests_in_flight: int | None = Field(None, ge=1, le=MAX_INTEGER, description="null: that of the settings")
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_INTEGER, description="null: no limit")
    max_request_seconds: float | None = Field(None, gt=0, le=MAX_INTEGER, description="null: no limit")
    priority: Literal["high", "normal", "low"] = "normal"

    def changes(self) -> dict[str, Any]:
        """The fields that the request has."""
        fields = self.model_dump(exclude_unset=True)
        return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


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
    max_output_tokens: int | None
    max_request_seconds: float | None
    priority: str
    created: float
    last_used: float | None
    revoked: float | None


class ChangedKeyAnswer(KeyAnswer):
    """One key that was created or changed."""

    unknown_models: list[str] = Field(description="Its models that are no uid, adapter or alias now")


class CreatedKeyAnswer(ChangedKeyAnswer):
    """One key with its secret, which is shown only once."""

    key: str


@router.get("", response_model=list[KeyAnswer])
async def every(keys: KeyringDep) -> list[dict[str, Any]]:
    """List all keys, including revoked and expired ones, without their secrets."""
    return [key.to_dict() for key in keys.all()]


@router.post("", response_model=CreatedKeyAnswer, responses=problems(409, 413, 415))
async def create(keys: KeyringDep, controller: ControllerDep, body: NewKeyBody) -> dict[str, Any]:
    """Create a key. Once there is a key, every request needs one."""
    key, secret = keys.create(body.new_key())
    return {**_with_unknown(key, controller), "key": secret}


@router.patch("/{key_id}", response_model=ChangedKeyAnswer, responses=problems(404, 409, 413, 415))
async def update(keys: KeyringDep, controller: ControllerDep, key_id: str, body: KeyChanges) -> dict[str, Any]:
    """Change the permissions of a key by its id or name, from the next request on; its secret stays."""
    return _with_unknown(keys.update(key_id, body.changes()), controller)


def _with_unknown(key: Key, controller: Controller) -> dict[str, Any]:
    """The fields of a key, with its models that do not exist: the name may have a typing error."""
    routes = controller.table.routes
    return {**key.to_dict(), "unknown_models": sorted(name for name in key.models or () if name not in routes)}


@router.delete("", response_model=dict[str, int])
async def forget_all(keys: KeyringDep) -> dict[str, int]:
    """Delete all keys. A server on loopback needs no keys then, and only its own user may manage it."""
    return {"removed": keys.remove_all()}


@router.delete("/{key_id}", response_model=KeyAnswer, responses=problems(404))
async def revoke(keys: KeyringDep, key_id: str) -> dict[str, Any]:
    """Revoke a key by its id or name. It stays in the list, and requests still need a key."""
    return keys.revoke(key_id).to_dict()
