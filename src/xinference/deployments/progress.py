"""The progress of a launch as the API reports it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xinference.store.event_log import TransferProgress

#: Where each stage begins and ends on the way from 0 to 1: bytes move in three of them, the rest is waited for.
SHARES: Mapping[str, tuple[float, float]] = {
    "pending": (0.0, 0.0),
    "plan": (0.0, 0.0),
    "fetch": (0.0, 0.8),
    "convert": (0.8, 0.85),
    "environment": (0.85, 0.9),
    "start": (0.9, 0.9),
    "health": (0.9, 0.9),
    "restart": (0.9, 0.9),
    "ready": (1.0, 1.0),
    "unloaded": (1.0, 1.0),
}
#: The same stages by the names that clients know.
NAMES: Mapping[str, str] = {
    "pending": "pending",
    "plan": "launching",
    "fetch": "downloading",
    "ready": "ready",
    "unloaded": "ready",
}


def progress(
    stage: str,
    failed_in: str | None,
    moving: TransferProgress | None,
    replicas: Sequence[Mapping[str, Any]],
    now: float,
) -> dict[str, Any]:
    """``GET /v1/models/{uid}/progress``; `failed_in` is the stage of the launch's problem, if it has one."""
    at = failed_in or stage
    begins, ends = SHARES.get(at, (0.9, 0.9))
    current = moving if moving is not None and moving.stage == at else None
    done = round(begins + (ends - begins) * (current.share if current else 0.0), 4)
    name = "failed" if failed_in else NAMES.get(stage, "loading")
    files = [_file(moving)] if moving is not None and moving.stage == "fetch" else []
    return {
        "progress": done,
        "stage": name,
        "download_files": files,
        "replicas": [
            {
                "replica_id": replica["replica_id"],
                "replica_model_uid": replica["replica_model_uid"],
                "progress": 1.0 if replica["status"] == "READY" else min(done, 0.9),
                "stage": "ready" if replica["status"] == "READY" else "loading" if name == "ready" else name,
                "info": replica["error_message"],
                "updated_at": current.at if current else now,
                "download_files": files,
            }
            for replica in replicas
        ],
    }


def unknown() -> dict[str, Any]:
    """The progress of what was never asked for: nothing, and no error, as clients poll before the launch is there."""
    return {"progress": 0.0, "stage": "pending", "download_files": [], "replicas": []}


def _file(moving: TransferProgress) -> dict[str, Any]:
    return {
        "file_name": moving.file,
        "bytes_done": moving.done,
        "bytes_total": moving.total,
        "progress": round(moving.share, 4),
    }
