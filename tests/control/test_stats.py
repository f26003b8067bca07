"""The samples of the rates, with the load of the machine and its GPUs."""

from __future__ import annotations

from tests.support.no_requests import NoRequests
from xinference.control.stats import Sampler
from xinference.records.totals import Totals


async def test_a_sample_has_the_load_of_each_gpu() -> None:
    clock = [0.0]
    read = [{"gpu0_utilization": 0.25, "gpu0_memory": 8.0}, {"gpu0_utilization": 0.75, "gpu0_memory": 9.0}]
    sampler = Sampler(Totals(), NoRequests(), lambda: {"cpu": 0.5}, lambda: clock[0], lambda: read[int(clock[0] > 0)])
    for clock[0] in (0.0, 2.0):
        await sampler.sample()
    (point,) = sampler.rates.points(2.0)
    assert point.host == {"cpu": 0.5, "gpu0_utilization": 0.75, "gpu0_memory": 9.0}


async def test_a_machine_without_a_gpu_is_asked_once() -> None:
    asked = []

    def read() -> dict[str, float]:
        asked.append(1)
        return {}

    sampler = Sampler(Totals(), NoRequests(), dict, lambda: 0.0, read)
    for _ in range(3):
        await sampler.sample()
    assert len(asked) == 1
