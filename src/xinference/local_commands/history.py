"""`xinference history` without a running server: the launches that are stored in this home."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from xinference.config import Settings
from xinference.control.launch_records import launch_record
from xinference.store.database import Store
from xinference.store.launch_history import LaunchHistory


def launch_records(settings: Settings, *, failed: bool = False) -> list[dict[str, Any]]:
    """The last launches, newest first; with `failed`, only those that have failed."""
    path = settings.home / "xinference.db"
    if not path.is_file():
        return []
    with closing(Store(path)) as store:
        records = [launch_record(row) for row in LaunchHistory(store).all()]
    return [record for record in records if not failed or record["status"] == "failed"]
