"""An API key, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The priorities of a key, the highest first.
PRIORITIES = ("high", "normal", "low")
NORMAL_PRIORITY = "normal"


@dataclass(frozen=True)
class Key:
    """One API key. Times are seconds since the epoch."""

    key_id: str
    name: str
    digest: bytes
    """SHA-256 of the key; the key itself is not stored."""
    scopes: frozenset[str]
    """``use``: requests to models, and their state. ``manage``: everything except requests to models. ``monitor``: the
    metrics and the state of the whole server, and nothing else."""
    models: frozenset[str] | None = None
    """Names of the permitted models; None: all."""
    expires: float | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    created: float = 0.0
    last_used: float | None = None
    revoked: float | None = None
    requests_in_flight: int | None = None
    """Maximum number of requests at the same time; None: that of the settings."""
    max_output_tokens: int | None = None
    """Maximum number of tokens of each answer; None: no limit."""
    max_request_seconds: float | None = None
    """Maximum time that an engine spends on one request; None: no limit."""
    priority: str = NORMAL_PRIORITY
    """The priority of its requests, one of `PRIORITIES`; a request may name a lower one."""

    session: str = ""
    """The id of the session of a browser that has these permissions; empty: this is the key itself."""
    session_end: str = ""
    """The code of the error that says why the session has ended; such a session is `revoked`, too."""

    def may_ask(self, model: str, parent: str | None = None) -> bool:
        """Whether the key permits `model`; `parent` is the deployment if `model` is its adapter."""
        return self.models is None or model in self.models or (parent is not None and parent in self.models)

    def to_dict(self) -> dict[str, Any]:
        """The fields that its owner may read."""
        return {
            "id": self.key_id,
            "name": self.name,
            "scopes": sorted(self.scopes),
            "models": None if self.models is None else sorted(self.models),
            "expires": self.expires,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "requests_in_flight": self.requests_in_flight,
            "max_output_tokens": self.max_output_tokens,
            "max_request_seconds": self.max_request_seconds,
            "priority": self.priority,
            "created": self.created,
            "last_used": self.last_used,
            "revoked": self.revoked,
        }
