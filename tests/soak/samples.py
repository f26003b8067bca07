"""Measures what a server uses while it serves, and whether it is flat: no measure may grow in the second half."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path

import httpx2
import psutil

from tests.support.home import Home
from xinference.config import Settings

#: Seconds in which one measurement of /metrics must have come.
ASK_SECONDS = 60


@dataclass(frozen=True)
class Sample:
    """The measures of one moment; each is a number that must not grow for ever."""

    seconds: float
    """Since the first sample."""
    server_kib: float
    """Resident memory of the server."""
    descriptors: float
    threads: float
    keeper_kib: float
    """Resident memory of the largest keeper."""
    store_kib: float
    """The database with its log of changes."""
    log_files: float
    log_kib: float
    """All logs: of engines and of the server."""
    series: float
    """Lines of ``/metrics``."""
    run_files: float
    """Files in the folder of sockets."""


@dataclass(frozen=True)
class Tolerance:
    """How much a measure may grow in the second half of a run: the greater of a number and a share of its median."""

    absolute: float
    share: float = 0.0

    def allows(self, growth: float, median: float) -> bool:
        return growth <= max(self.absolute, self.share * median)


class Sampler:
    """Takes a sample at each interval, in a thread of its own."""

    def __init__(self, home: Home, server_pid: int, server_log: Path, key: str, interval: float) -> None:
        self._home = home
        self._server = psutil.Process(server_pid)
        self._server_log = server_log
        self._key = key
        self._interval = interval
        self._ended = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            with contextlib.suppress(psutil.Error, httpx2.HTTPError):
                self.samples.append(self._sample())

    def _sample(self) -> Sample:
        home, log_dir = self._home.path, self._home.path / "logs"
        with self._server.oneshot():
            memory, descriptors, threads = (
                self._server.memory_info().rss,
                self._server.num_fds(),
                self._server.num_threads(),
            )
        keepers = [child.memory_info().rss for child in self._server.children() if _is_keeper(child)]
        logs = [*_sizes(log_dir), self._server_log.stat().st_size]
        return Sample(
            seconds=time.monotonic() - self._began,
            server_kib=memory / 1024,
            descriptors=descriptors,
            threads=threads,
            keeper_kib=max(keepers, default=0) / 1024,
            store_kib=sum(path.stat().st_size for path in home.glob("xinference.db*")) / 1024,
            log_files=len(logs),
            log_kib=sum(logs) / 1024,
            series=self._series(),
            run_files=len(_sizes(Settings(home=home).run_dir)),
        )

    def _series(self) -> int:
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = httpx2.get(f"{self._home.url}/metrics", headers=headers, timeout=ASK_SECONDS)
        answer.raise_for_status()
        return sum(not line.startswith("#") for line in answer.text.splitlines())


def _is_keeper(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("process.keeper" in word or word.endswith("keeper.py") for word in process.cmdline())
    return False


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for path in folder.glob("**/*"):
        with contextlib.suppress(OSError):  # it may have been removed
            if not path.is_dir():
                sizes.append(path.lstat().st_size)
    return sizes


def second_half(samples: Sequence[Sample]) -> Sequence[Sample]:
    return [sample for sample in samples if sample.seconds >= samples[-1].seconds / 2]


def growth(samples: Sequence[Sample], measure: str) -> float:
    """How much a measure grows over these samples: the median slope of all pairs (Theil and Sen), times the duration.

    Single high samples, as while a model is launched, do not change it.
    """
    points = [(sample.seconds, getattr(sample, measure)) for sample in samples]
    step = max(1, len(points) // 200)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points[::step], 2) if b[0] > a[0]]
    return statistics.median(slopes) * (points[-1][0] - points[0][0]) if slopes else 0.0


def growing(samples: Sequence[Sample], tolerances: dict[str, Tolerance]) -> list[str]:
    """The measures that grow in the second half by more than their tolerance, each as a sentence."""
    half = second_half(samples)
    found = []
    for measure, tolerance in tolerances.items():
        grown = growth(half, measure)
        median = statistics.median(getattr(sample, measure) for sample in half)
        if not tolerance.allows(grown, median):
            found.append(f"{measure} grows by {grown:.1f} in the second half; its median there is {median:.1f}")
    return found


def table(samples: Sequence[Sample]) -> str:
    """The first, the middle and the last value of each measure, the maximum, and its growth in the second half."""
    half = second_half(samples)
    rows = [f"{'':14}{'first':>12}{'middle':>12}{'last':>12}{'maximum':>12}{'growth':>12}"]
    for each in fields(Sample)[1:]:
        value: Callable[[Sample], float] = attrgetter(each.name)
        chosen = (samples[0], samples[len(samples) // 2], samples[-1], max(samples, key=value))
        columns = (*map(value, chosen), growth(half, each.name))
        rows.append(f"{each.name:14}" + "".join(f"{column:12.1f}" for column in columns))
    return "\n".join(rows)
