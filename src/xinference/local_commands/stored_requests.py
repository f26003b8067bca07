"""The launches that a server of this home would load first, read from its database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from xinference.config import Settings
from xinference.control.kept_launches import launch_fields
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


def stored_launches(settings: Settings) -> list[dict[str, Any]]:
    """The fields of each of these launches, with its uid, as the server lists them."""
    return [{**launch_fields(request), "model_uid": uid} for uid, request in stored_requests(settings)]
