"""The entries of the launch history in the form of the API. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.launch.comparison import asked_fields
from xinference.launch.request import decode_request
from xinference.store.launch_history import LaunchRow
from xinference.timestamps import utc_time

HIDDEN = "***"


def launch_record(row: LaunchRow) -> dict[str, Any]:
    """The entry of one launch in ``GET /v1/launch_history``; the values of its environment variables are hidden."""
    fields = launch_fields(row)
    return {
        "id": row.launch_id,
        "model_name": str(fields.get("model_name", row.uid)),
        "model_uid": row.uid,
        "status": _status(row),
        "data": {**fields, "model_uid": row.uid},
        "ui_data": None,
        "created_at": utc_time(row.created),
        "updated_at": utc_time(row.ended or row.ready or row.created),
        "ready_at": None if row.ready is None else utc_time(row.ready),
        "ended_at": None if row.ended is None else utc_time(row.ended),
        "created_by": "",
        "is_owner": True,
        "problem": row.problem.to_dict() if row.problem else None,
    }


def launch_fields(row: LaunchRow) -> dict[str, Any]:
    """The fields of the same launch as a body of ``POST /v1/models``; empty if the row is damaged."""
    try:
        request = decode_request(row.request)
    except ValueError:
        return {}
    fields = {name: value for name, value in asked_fields(request).items() if name not in ("family", "options")}
    if "envs" in fields:
        fields["envs"] = dict.fromkeys(fields["envs"], HIDDEN)
    options: dict[str, Any] = msgspec.to_builtins(request.options)
    return options | fields | {"model_name": request.asked_name or request.model_name}


def _status(row: LaunchRow) -> str:
    if row.problem is not None:
        return "failed"
    if row.ended is not None:
        return "cancelled" if row.ready is None else "ended"
    return "launching" if row.ready is None else "running"
