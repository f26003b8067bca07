"""The launches that a server of this home would load first, read from its database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import msgspec

from xinference.config import Settings
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store

Stored = Sequence[tuple[str, LaunchRequest]]
"""The uids and requests of the launches of a home."""


def stored_requests(settings: Settings) -> Stored:
    """Uid and request of each model that a server would load; an unreadable one is left out."""
    path = settings.home / "xinference.db"
    if not path.is_file():
        return []
    with closing(Store(path)) as store:
        rows = [row for row in store.deployments() if row.wanted and row.problem is None]
    requests = []
    for row in rows:
        try:
            requests.append((row.uid, msgspec.json.decode(row.request, type=LaunchRequest)))
        except msgspec.MsgspecError:
            continue
    return requests
