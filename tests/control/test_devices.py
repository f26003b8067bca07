"""The machine with the owners of its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from xinference.control import devices
from xinference.control.devices import DeviceReader, Owner, read_disks, view
from xinference.hardware.devices import Gpu, Host
from xinference.hardware.gpu_load import GpuLoad
from xinference.launch.plan import Sizing
from xinference.nodes.memory_use import MemoryUse

GIB = 1 << 30
GPUS = tuple(Gpu(index, "H200", 100 * GIB, 40 * GIB, uuid=f"GPU-{index}") for index in (0, 1))
HOST = Host(physical_cores=8, memory_total=64 * GIB, memory_available=32 * GIB, gpus=GPUS)


def sizing(weights: int, state_bytes: int = 0, later_bytes: int = 0) -> Sizing:
    return Sizing(512, 1, weights, 0, 0, state_bytes=state_bytes, later_bytes=later_bytes)


def test_each_device_has_its_owners_with_planned_and_measured_bytes() -> None:
    held = [
        Owner("cpu", 0, sizing(4 * GIB), (), 1),
        Owner("gpu", 1, sizing(60 * GIB), (0, 1), 2),
        Owner("new", 0, None, (), None),
    ]
    used = [MemoryUse(3 * GIB, None), MemoryUse(2 * GIB, 50 * GIB), None]
    answer = view(HOST, held, used, [], 5.0)
    assert answer["node"] == "local"
    figures = [(o["model_uid"], o["replica"], o["planned"], o["measured"]) for o in answer["host"]["owners"]]
    assert figures == [("cpu", 0, 4 * GIB, 3 * GIB), ("gpu", 1, None, 2 * GIB), ("new", 0, None, None)]
    for gpu in answer["gpus"]:
        assert (gpu["total"], gpu["free"]) == (100 * GIB, 40 * GIB)
        assert [(o["node"], o["model_uid"], o["planned"], o["measured"]) for o in gpu["owners"]] == [
            ("local", "gpu", 30 * GIB, 25 * GIB)
        ]


def test_saved_states_are_a_part_of_the_plan_that_is_not_there_when_the_engine_is_ready() -> None:
    held = [Owner("chat", number, sizing(4 * GIB, state_bytes=GIB, later_bytes=2 * GIB), (), 1) for number in (0, 1)]
    answer = view(HOST, held, [MemoryUse(2 * GIB, None)] * 2, [], 5.0, states={"chat": GIB})
    owners = answer["host"]["owners"]
    assert len(owners) == 2
    for owner in owners:
        assert (owner["planned"], owner["planned_loaded"], owner["planned_states"]) == (5 * GIB, 2 * GIB, GIB)
        # The replicas of a model share its states.
        assert (owner["measured"], owner["measured_states"]) == (2 * GIB + GIB // 2, GIB // 2)


def test_saved_states_of_a_model_on_a_gpu_are_planned_on_the_host() -> None:
    answer = view(HOST, [Owner("gpu", 0, sizing(8 * GIB, state_bytes=GIB), (0,), 1)], [None], [], 5.0)
    assert [owner["planned"] for owner in answer["host"]["owners"]] == [GIB]
    assert [owner["planned"] for gpu in answer["gpus"] for owner in gpu["owners"]] == [8 * GIB]


def test_a_driver_that_tells_no_bytes_leaves_them_unknown() -> None:
    (gpu, _) = view(HOST, [Owner("gpu", 0, sizing(GIB), (0,), 2)], [MemoryUse(1, None)], [], 5.0)["gpus"]
    assert gpu["owners"][0]["measured"] is None
    assert (gpu["utilization"], gpu["temperature"], gpu["power"]) == (None, None, None), "it reports no load"


def test_a_gpu_has_its_load() -> None:
    loads = [GpuLoad("GPU-1", 0.5, 60.0, 300.0, 1), GpuLoad("GPU-of another one", 1.0)]
    first, second = view(HOST, [], [], [], 5.0, loads)["gpus"]
    assert first["utilization"] is None
    assert (second["utilization"], second["temperature"], second["power"]) == (0.5, 60.0, 300.0)


def test_a_disk_is_listed_once_with_its_folders(tmp_path: Path) -> None:
    (disk,) = read_disks([("home", tmp_path), ("cache", tmp_path / "not" / "yet")])
    assert disk["holds"] == ["home", "cache"] and 0 <= disk["free"] <= disk["total"]


async def test_readers_share_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, reads = [0.0], []

    def read() -> Host:
        reads.append(clock[0])
        return HOST

    monkeypatch.setattr(devices, "read_host", read)
    reader = DeviceReader(list, (), lambda: clock[0])
    for clock[0] in (0.0, 1.0, 1.9, 2.0):
        assert (await reader.read())["host"]["total"] == 64 * GIB
    assert reads == [0.0, 2.0]
