"""The metrics of models and of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import Metric

from xinference.config import Settings
from xinference.control import machine_metrics
from xinference.control.controller import Controller
from xinference.control.server_metrics import server_metrics
from xinference.deployments.counts import Counts
from xinference.hardware.gpu_load import GpuLoad


def samples(metrics: list[Metric], name: str) -> dict[tuple[str, ...], float]:
    found = [sample for metric in metrics for sample in metric.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in found}


async def test_the_memory_and_the_disks_of_the_machine(controller: Controller, tmp_path: Path) -> None:
    metrics = await server_metrics(controller, Settings(home=tmp_path))
    memory = samples(metrics, "xinference_memory_bytes")
    assert memory["host", "total"] >= memory["host", "free"] > 0
    assert memory["host", "planned"] == memory["host", "measured"] == 0
    disks = samples(metrics, "xinference_disk_bytes")
    assert {name for name, _ in disks} == {"home", "cache", "environments"}
    assert all(disks[name, "total"] >= disks[name, "free"] for name, _ in disks)


def test_the_memory_of_a_process_is_measured() -> None:
    readings = machine_metrics.read(Settings(), [os.getpid(), 2**22 + 1])
    assert readings.used[os.getpid()].memory > 0 and len(readings.used) == 1


def test_a_device_shows_only_what_it_reports() -> None:
    metrics = list(machine_metrics._loads([GpuLoad("GPU-1", 0.5, 60.0), GpuLoad("GPU-2", power=70.0)]))
    assert samples(metrics, "xinference_device_utilization_ratio") == {("GPU-1",): 0.5}
    assert samples(metrics, "xinference_device_temperature_celsius") == {("GPU-1",): 60.0}
    assert samples(metrics, "xinference_device_power_watts") == {("GPU-2",): 70.0}


async def test_the_counts_of_a_model_end_with_it(controller: Controller, tmp_path: Path) -> None:
    counts = controller.counts
    counts.restarted("gone")
    counts.loaded("gone", 2.0)
    counts.unloaded("gone", "evicted")
    counts.downloaded["huggingface"] += 5
    metrics = await server_metrics(controller, Settings(home=tmp_path))
    assert samples(metrics, "xinference_replica_restarts_total") == {}
    assert samples(metrics, "xinference_load_seconds_count") == {}
    assert samples(metrics, "xinference_unloads_total") == {}
    assert samples(metrics, "xinference_download_bytes_total") == {("huggingface",): 5}


@pytest.mark.parametrize(
    ("done", "counted"), [([10, 20, 50], 40), ([0, 7], 7), ([100], 0), ([100, 40, 60], 20)], ids=str
)
def test_the_bytes_of_a_download_are_counted_from_where_it_goes_on(done: list[int], counted: int) -> None:
    counts = Counts()
    count = counts.meter("hub")
    for number in done:
        count(number)
    assert counts.downloaded["hub"] == counted


async def test_the_followers_of_the_server_are_counted(controller: Controller, tmp_path: Path) -> None:
    controller.counts.followers, controller.counts.lost_changes = 3, 2
    metrics = await server_metrics(controller, Settings(home=tmp_path))
    assert samples(metrics, "xinference_watchers") == {(): 3}
    assert samples(metrics, "xinference_watch_dropped_total") == {(): 2}
