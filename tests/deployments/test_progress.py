"""How far a launch is, from its stage and the bytes that moved last."""

from __future__ import annotations

from typing import Any

import pytest

from xinference.deployments.progress import progress, unknown
from xinference.store.event_log import TransferProgress

REPLICA = {"replica_id": 0, "replica_model_uid": "m-rep0", "status": "LOADING", "error_message": None}


def at(
    stage: str, *, failed_in: str | None = None, moving: TransferProgress | None = None, **replica: Any
) -> dict[str, Any]:
    return progress(stage, failed_in, moving, [REPLICA | replica], now=50.0)


def test_a_launch_goes_from_nothing_to_one_and_never_back() -> None:
    half = TransferProgress("fetch", "weights.gguf", 500, 1000, 1.0)
    converting = TransferProgress("convert", "weights.gguf", 500, 1000, 2.0)
    told = [
        at("pending"),
        at("plan"),
        at("fetch"),
        at("fetch", moving=half),
        at("convert", moving=half),
        at("convert", moving=converting),
        at("environment", moving=converting),
        at("start"),
        at("ready", status="READY"),
    ]
    assert [each["progress"] for each in told] == [0, 0, 0, 0.4, 0.8, 0.825, 0.85, 0.9, 1]
    names = ["pending", "launching", "downloading", "downloading", "loading", "loading", "loading", "loading", "ready"]
    assert [each["stage"] for each in told] == names


def test_the_bytes_of_a_download_are_told() -> None:
    told = at("fetch", moving=TransferProgress("fetch", "weights.gguf", 250, 1000, 7.0))
    file = {"file_name": "weights.gguf", "bytes_done": 250, "bytes_total": 1000, "progress": 0.25}
    assert told["download_files"] == [file]
    assert (
        told["replicas"][0] | {"updated_at": 7.0, "download_files": [file], "stage": "downloading"}
        == told["replicas"][0]
    )


@pytest.mark.parametrize("total", [None, 0])
def test_bytes_of_an_unknown_whole_are_no_progress_but_are_told(total: int | None) -> None:
    told = at("fetch", moving=TransferProgress("fetch", "f", 250, total, 7.0))
    assert told["progress"] == 0 and told["download_files"][0]["bytes_done"] == 250


def test_a_failed_launch_stays_where_it_failed() -> None:
    told = at("failed", failed_in="start", status="ERROR", error_message="It died.")
    assert (told["progress"], told["stage"], told["replicas"][0]["info"]) == (0.9, "failed", "It died.")


def test_a_replica_that_is_added_loads_beside_a_model_that_is_ready() -> None:
    told = at("ready")
    assert (told["progress"], told["replicas"][0]["progress"], told["replicas"][0]["stage"]) == (1, 0.9, "loading")


def test_an_unknown_uid_is_nothing_and_no_error() -> None:
    assert unknown()["progress"] == 0.0
