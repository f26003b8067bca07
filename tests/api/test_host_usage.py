"""The use of the processors is the same for all who ask."""

from __future__ import annotations

from xinference.api.host_usage import CpuMeter, CpuTimes, read_cpu_times


def test_a_second_caller_does_not_shorten_the_interval_of_the_first() -> None:
    readings = [CpuTimes(0.0, 0.0, 0.0), CpuTimes(10.0, 5.0, 10.0), CpuTimes(10.001, 5.0, 10.001)]
    meter = CpuMeter(lambda: readings.pop(0))
    assert meter.share() == 0.5
    assert round(meter.share(), 2) == 0.5, "a millisecond later it is not 0"


def test_the_share_follows_the_use_and_stays_between_0_and_1() -> None:
    readings = [CpuTimes(float(n), busy, float(n)) for n, busy in enumerate([0.0, 1.0, 1.0, 1.0, 0.5])]
    meter = CpuMeter(lambda: readings.pop(0))
    assert [meter.share() for _ in range(4)] == [1.0, 0.0, 0.0, 0.0]


def test_the_times_of_this_machine_can_be_read() -> None:
    times = read_cpu_times()
    assert 0 < times.busy < times.total
