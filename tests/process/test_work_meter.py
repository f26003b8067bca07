"""What an engine's processes do, as the system tells."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.polling import until
from xinference.process.work_meter import WorkMeter

pytestmark = pytest.mark.process
SPIN = "while True: pass"
SLEEP = "import time; time.sleep(600)"
#: A thread whose kernel calls run without Python's lock, beside one that does the same.
BOTH = (
    "import hashlib, threading; data = bytes(1 << 24)\n"
    "def work():\n while True: hashlib.sha256(data)\n"
    "threading.Thread(target=work, daemon=True).start(); work()"
)
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN!r}])"


@contextmanager
def running(code: str) -> Iterator[WorkMeter]:
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        meter = WorkMeter(process.pid)
        meter.restart()
        yield meter
    finally:
        for each in (*psutil.Process(process.pid).children(recursive=True), process):
            each.kill()
        process.wait()


@pytest.mark.parametrize("code", [SPIN, CHILD])
def test_one_busy_thread_is_seen_also_in_a_child(code: str) -> None:
    with running(code) as meter:
        until("it has worked", lambda: meter.work().busiest > 1)
        work = meter.work()
        assert work.second < 0.2 * work.busiest
        meter.restart()
        assert meter.work().busiest < 0.5


def test_several_busy_threads_are_seen() -> None:
    with running(BOTH) as meter:
        until("both have worked", lambda: (work := meter.work()).busiest > 1 and work.second > work.busiest / 2)


def test_a_process_that_sleeps_does_nothing() -> None:
    with running(SLEEP) as meter:
        until("it sleeps", lambda: psutil.Process(meter._pid).status() == psutil.STATUS_SLEEPING)
        meter.restart()
        work = meter.work()
        assert work.busiest == work.second == 0


def test_without_threads_the_work_of_the_process_may_be_that_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: psutil.Process) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "threads", denied)
    with running(SPIN) as meter:
        until("it has worked", lambda: meter.work().busiest > 0.2)
        work = meter.work()
        assert work.busiest == work.second


def test_a_process_that_has_ended_does_nothing() -> None:
    meter = WorkMeter(2**30)
    meter.restart()
    assert meter.work().busiest == 0
