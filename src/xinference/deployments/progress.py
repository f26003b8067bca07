"""The progress of a launch as the API reports it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xinference.store.event_log import TransferProgress

#: The progress at the begin and the end of each stage, from 0 to 1. Only stages that transfer bytes have a range.
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
#: The names of the stages in the API's progress entries.
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
    transfer: TransferProgress | None,
    replicas: Sequence[Mapping[str, Any]],
    now: float,
) -> dict[str, Any]:
    """The answer of ``GET /v1/models/{uid}/progress``; `failed_in` is the stage of the deployment's problem, if any."""
    at = failed_in or stage
    begins, ends = SHARES.get(at, (0.9, 0.9))
    current = transfer if transfer is not None and transfer.stage == at else None
    done = round(begins + (ends - begins) * (current.share if current else 0.0), 4)
    name = "failed" if failed_in else NAMES.get(stage, "loading")
    files = [transfer_entry(transfer)] if transfer is not None and transfer.stage == "fetch" else []
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
    """The progress of an unknown uid: pending instead of an error, because clients poll before the launch is stored."""
    return {"progress": 0.0, "stage": "pending", "download_files": [], "replicas": []}


def transfer_entry(transfer: TransferProgress) -> dict[str, Any]:
    """The progress of one file in the form of the API."""
    return {
        "file_name": transfer.file,
        "bytes_done": transfer.done,
        "bytes_total": transfer.total,
        "progress": round(transfer.share, 4),
    }
