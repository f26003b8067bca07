"""`xinference history` without a running server: the launches that are stored in this home."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from xinference.config import Settings
from xinference.control.launch_records import launch_record
from xinference.store.database import Store
from xinference.store.launch_history import LaunchHistory

#: The status of a model that is stored in a home without a running server.
STOPPED = "stopped"


def launch_records(settings: Settings, *, failed: bool = False) -> list[dict[str, Any]]:
    """The last launches, newest first; with `failed`, only those that have failed.

    A model that the next server starts again has the status ``stopped``: without a server it neither runs nor launches.
    """
    path = settings.home / "xinference.db"
    if not path.is_file():
        return []
    with closing(Store(path)) as store:
        records = [_without_server(launch_record(row)) for row in LaunchHistory(store).all()]
    return [record for record in records if not failed or record["status"] == "failed"]


def _without_server(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"status": STOPPED} if record["status"] in ("running", "launching") else record
