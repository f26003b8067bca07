"""Decides which models are visible with a key, for the gateway and for the management API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.errors import Problem
from xinference.keys.key import Key

#: The ASGI scope entry with the request's key, for the management API; None: no key was required.
SCOPE_KEY = "xinference.key"

#: The ASGI scope entry of a request that comes from the server's own user.
FROM_OWNER = "xinference.from_owner"


def manages(key: Key | None) -> bool:
    """Whether the holder of `key` may know of every model and of this machine's paths; None: no key was required."""
    return key is None or "manage" in key.scopes


def sees(key: Key | None, model: str, parent: str | None = None) -> bool:
    """Whether `model` is visible with `key`."""
    return key is None or manages(key) or key.may_ask(model, parent)


def key_of(scope: Mapping[str, Any]) -> Key | None:
    """The key of a request to the management API."""
    key: Key | None = scope.get(SCOPE_KEY)
    return key


def for_holder(key: Key | None, problem: Problem) -> Problem:
    """`problem`; without its hint if not all models are visible with `key`, because the hint may name models."""
    if key is None or key.models is None or manages(key):
        return problem
    return problem.replace(hint=None, stage=None, log_tail=(), suggestions=())
