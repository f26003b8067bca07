"""The fields of a key to be created, and their check."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xinference.errors import bad_request
from xinference.keys.key import NORMAL_PRIORITY, PRIORITIES

SCOPES = ("use", "manage", "monitor")
#: The limits of a key.
LIMITS = ("requests_per_minute", "tokens_per_minute", "requests_in_flight", "max_output_tokens", "max_request_seconds")
MAX_MODEL_NAME = 100
#: Lifetimes of keys are shorter than this, in seconds: a later time has no date.
MAX_LIFETIME = 1000 * 365 * 86_400.0
_NAME = re.compile(r"[\w.@-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class NewKey:
    """The fields of a key to be created."""

    name: str | None = None
    """The owner's name for it; None: its id."""
    scopes: tuple[str, ...] = ("use",)
    models: tuple[str, ...] | None = None
    expires_in: float | None = None
    """Seconds from now; None: never."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_in_flight: int | None = None
    max_output_tokens: int | None = None
    max_request_seconds: float | None = None
    priority: str = NORMAL_PRIORITY


def check(new: NewKey) -> None:
    """Refuse invalid fields of a key.

    Raises:
        Problem: 400, which names the field and its value.
    """
    if new.name is not None and not _NAME.fullmatch(new.name):
        hint = "Use 1 to 100 letters, digits and any of . _ @ -"
        raise bad_request(f"The name {new.name[:100]!r} is not valid for a key.", hint=hint)
    unknown = [scope for scope in new.scopes if scope not in SCOPES]
    if unknown or not new.scopes:
        shown = f"There is no scope {unknown[0][:100]!r}." if unknown else "A key needs a scope."
        raise bad_request(shown, hint=f"The scopes are {', '.join(SCOPES[:-1])} and {SCOPES[-1]}.")
    if new.models is not None and not all(
        0 < len(m) <= MAX_MODEL_NAME and m.isprintable() for m in new.models or ("",)
    ):
        raise bad_request("A key for certain models needs their names.", hint="Omit `models` to allow all.")
    if new.priority not in PRIORITIES:
        hint = f"The priorities are {', '.join(PRIORITIES[:-1])} and {PRIORITIES[-1]}."
        raise bad_request(f"There is no priority {new.priority[:100]!r}.", hint=hint)
    if new.expires_in is not None and not 0 < new.expires_in < MAX_LIFETIME:
        hint = f"Use a positive number below {MAX_LIFETIME:.0f} (1000 years)."
        raise bad_request(f"A key can't expire in {new.expires_in} seconds.", hint=hint)
    for field in LIMITS:
        limit: float | None = getattr(new, field)
        if limit is not None and not (0 < limit < 2**53 and (limit >= 1 or field == "max_request_seconds")):
            raise bad_request(f"{field} is {limit}.", hint="Use a positive number, or leave it out for no limit.")
