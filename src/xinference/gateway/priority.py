"""The priority of a request in the queue before the engines, by its fields and its key.

OpenAI's `service_tier` and the field `priority` name it. A key limits it: a field alone passes no other client.
"""

from __future__ import annotations

from xinference.keys.key import PRIORITIES, Key
from xinference.protocol.requests import Request

#: The levels: a request of a lower number gets its place first.
HIGH, NORMAL, LOW = range(len(PRIORITIES))
#: OpenAI's tiers that have a level of their own.
_TIERS = {"priority": HIGH, "flex": LOW}


def priority_of(request: Request, key: Key | None) -> int:
    """The level of a request.

    Requests without a field have the level of their key, and no request has a higher one. Without a key, the fields
    alone count. In `priority`, a lower number comes first, and 0 is normal.
    """
    allowed = HIGH if key is None else PRIORITIES.index(key.priority)
    if request.priority is not None:
        wanted = HIGH if request.priority < 0 else LOW if request.priority > 0 else NORMAL
    else:
        usual = NORMAL if key is None else allowed
        wanted = _TIERS.get(request.service_tier or "", usual)
    return max(wanted, allowed)
