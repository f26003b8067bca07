"""The entries of the launch history in the form of the API. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from xinference.launch.comparison import asked_fields
from xinference.launch.request import decode_request
from xinference.store.launch_history import LaunchRow

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
        "created_at": _iso(row.created),
        "updated_at": _iso(row.ended or row.ready or row.created),
        "ready_at": _iso(row.ready),
        "ended_at": _iso(row.ended),
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


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
