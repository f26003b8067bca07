"""The requests about API keys; see `request`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xinference.client import answers
from xinference.client.answers import Json
from xinference.client.request import Request, path

_KEYS = "/v1/keys"


def list_keys() -> Request[list[Json]]:
    """All keys, including revoked and expired ones; times in seconds since the epoch."""
    return Request(path=_KEYS, read=answers.as_objects)


def create_key(
    name: str | None = None,
    scopes: Sequence[str] = ("use",),
    models: Sequence[str] | None = None,
    expires_in: float | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
    requests_in_flight: int | None = None,
    max_output_tokens: int | None = None,
    max_request_seconds: float | None = None,
    priority: str = "normal",
) -> Request[Json]:
    """Create a key; only this answer has its secret, as ``key``. Once there is a key, every request needs one.

    Args:
        models: uids of the models that the key may use; None: all.
        expires_in: seconds until the key expires; None: never.
        requests_in_flight: maximum number of requests at the same time; None: that of the server's settings.
        max_output_tokens: maximum number of tokens of each answer.
        max_request_seconds: maximum time that an engine spends on one request.
        priority: of its requests before the engines: ``high``, ``normal`` or ``low``.
    """
    limits = {
        "expires_in": expires_in,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "requests_in_flight": requests_in_flight,
        "max_output_tokens": max_output_tokens,
        "max_request_seconds": max_request_seconds,
        "priority": None if priority == "normal" else priority,
    }
    body = {"name": name, "scopes": list(scopes), "models": None if models is None else list(models), **limits}
    body = {field: value for field, value in body.items() if value is not None}
    return Request(method="POST", path=_KEYS, body=body, read=answers.as_object)


def update_key(key: str, **changes: Any) -> Request[Json]:
    """Change a key, by its id or name; its secret stays.

    Args:
        changes: the fields of `create_key` to change; None removes a limit, an expiry, or the limitation to models.
    """
    body = {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}
    return Request(method="PATCH", path=path("v1", "keys", key), body=body, read=answers.as_object)


def revoke_key(key: str) -> Request[Json]:
    """Revoke a key, by its id or name."""
    return Request(method="DELETE", path=path("v1", "keys", key), read=answers.as_object)


def forget_keys() -> Request[Json]:
    """Delete all keys: ``removed`` is their number. A server on loopback needs no keys then."""
    return Request(method="DELETE", path=_KEYS, read=answers.as_object)


def create_login_code() -> Request[Json]:
    """A code with which a browser logs in to the page of the server once, with the permissions of this client's key."""
    return Request(method="POST", path="/v1/sessions/codes", body={}, read=answers.as_object)
