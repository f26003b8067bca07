"""The columns of the list of API keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xinference.cli.output import local_time

Json = dict[str, Any]
#: Limit of a key -> its unit in the column `Limits`.
_LIMITS = {
    "requests_per_minute": "requests/min",
    "tokens_per_minute": "tokens/min",
    "requests_in_flight": "in flight",
    "max_output_tokens": "output tokens",
    "max_request_seconds": "s per request",
}


def limits(key: Json) -> str | None:
    """All limits of a key.

    >>> limits({"requests_per_minute": 5, "max_request_seconds": 30.0})
    '5 requests/min, 30 s per request'
    """
    texts = [f"{key[name]:.12g} {unit}" for name, unit in _LIMITS.items() if key.get(name) is not None]
    if key.get("priority", "normal") != "normal":
        texts.append(f"{key['priority']} priority")
    return ", ".join(texts) or None


def _state(key: Json, now: float) -> str:
    if key["revoked"] is not None:
        return "revoked"
    return "expired" if key["expires"] is not None and key["expires"] <= now else "active"


#: Column -> its value for a key at a time.
COLUMNS: Mapping[str, Callable[[Json, float], Any]] = {
    "Name": lambda key, now: key["name"],
    "Id": lambda key, now: key["id"],
    "Scopes": lambda key, now: ", ".join(key["scopes"]),
    "Models": lambda key, now: "all" if key["models"] is None else ", ".join(key["models"]),
    "Limits": lambda key, now: limits(key),
    "Requests/min": lambda key, now: key["requests_per_minute"],
    "Tokens/min": lambda key, now: key["tokens_per_minute"],
    "In flight": lambda key, now: key["requests_in_flight"],
    "Output tokens": lambda key, now: key.get("max_output_tokens"),
    "Seconds": lambda key, now: key.get("max_request_seconds"),
    "Priority": lambda key, now: key.get("priority"),
    "Expires": lambda key, now: local_time(key["expires"]),
    "Last used": lambda key, now: local_time(key["last_used"]),
    "State": _state,
}
WIDE = [name for name in COLUMNS if name != "Limits"]
#: The columns for a narrow terminal: all limits in one.
NARROW = ["Name", "Scopes", "Models", "Limits", "Expires", "Last used", "State"]
