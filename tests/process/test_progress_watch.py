"""When an engine hangs, and when it only computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from xinference.process.progress_watch import Limits, ProgressWatch, Step, Work

LIMITS = Limits(busy=20.0, answer=60.0, computing=1800.0)
#: One thread is busy: the loop that computes never comes back.
SPINNING = Work(busiest=1e6, second=1.0)
#: All threads compute a batch.
COMPUTING = Work(busiest=1e6, second=1e6)
READING = Work(bytes_read=1 << 30)
IDLE = Work()


class Watched:
    """A watch with a clock of its own."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.watch = ProgressWatch(LIMITS, self.now, **options)

    def after(self, seconds: float, in_flight: int = 1, last_byte: float = 0.0, work: Work = IDLE) -> Step:
        """Observe once after this time."""
        self.now += seconds
        return self.watch.observe(self.now, in_flight, last_byte, work)

    def steps(self, seconds: float, in_flight: int = 1, work: Work = IDLE) -> Iterator[Step]:
        """Observe every five seconds."""
        for _ in range(int(seconds / 5)):
            yield self.after(5, in_flight, work=work)

    def probed(self) -> Watched:
        """This watch with a probe that has just been sent."""
        assert Step.SEND_PROBE in list(self.steps(20))
        return self


def test_an_engine_without_requests_gets_no_probe() -> None:
    assert set(Watched().steps(3600, in_flight=0)) == {Step.NOTHING}


def test_an_engine_with_requests_gets_a_probe_again_and_again() -> None:
    watched = Watched()
    for _ in range(3):
        assert list(watched.steps(20)) == [Step.NOTHING] * 3 + [Step.SEND_PROBE]
        watched.watch.note_answer()


@pytest.mark.parametrize("work", [IDLE, SPINNING])
def test_an_engine_that_does_nothing_or_spins_in_one_thread_hangs_after_its_deadline(work: Work) -> None:
    watched = Watched().probed()
    assert set(watched.steps(55, work=work)) == {Step.NOTHING}
    assert watched.after(5, work=work) is Step.END


def test_it_hangs_also_if_every_client_has_left() -> None:
    watched = Watched().probed()
    assert Step.END in list(watched.steps(60, in_flight=0, work=SPINNING))


@pytest.mark.parametrize("work", [COMPUTING, READING])
def test_an_engine_that_computes_a_long_batch_or_reads_from_the_disk_gets_half_an_hour(work: Work) -> None:
    watched = Watched().probed()
    assert set(watched.steps(1795, work=work)) == {Step.NOTHING}
    assert watched.after(5, work=work) is Step.END


def test_a_single_busy_thread_is_a_computation_if_the_engine_has_no_other() -> None:
    watched = Watched(one_thread=True).probed()
    assert set(watched.steps(1795, work=SPINNING)) == {Step.NOTHING}
    assert Step.END in list(Watched(one_thread=True).probed().steps(60, work=IDLE))


def test_a_late_answer_ends_the_wait() -> None:
    watched = Watched().probed()
    list(watched.steps(55))
    watched.watch.note_answer()
    assert set(watched.steps(15)) == {Step.NOTHING}
    assert watched.after(5) is Step.SEND_PROBE


@pytest.mark.parametrize("gap", [60.0, 3600.0, 1e6])
def test_a_machine_or_a_server_that_was_stopped_finds_no_engine_overdue(gap: float) -> None:
    watched = Watched().probed()
    assert watched.after(gap) is Step.NOTHING
    assert Watched().after(gap) is Step.NOTHING


def test_bytes_answer_for_a_probe_that_waits_behind_many_requests() -> None:
    watched = Watched(max_in_flight=64).probed()
    for _ in range(100):
        assert watched.after(5, in_flight=64, last_byte=watched.now + 4, work=SPINNING) is Step.NOTHING
    silent = watched.now
    assert [watched.after(5, 64, silent, SPINNING) for _ in range(14)][-1] is Step.END


def test_bytes_answer_for_no_probe_that_has_room() -> None:
    """A hung engine may go on sending comments that keep its streams open."""
    watched = Watched(max_in_flight=64).probed()
    assert Step.END in [watched.after(5, 63, watched.now + 4, SPINNING) for _ in range(12)]


def test_short_limits_are_observed_more_often() -> None:
    assert LIMITS.interval == 5
    assert Limits(1.0, 2.0, 10.0).interval == 0.5
