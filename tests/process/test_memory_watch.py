"""The ceiling of an engine's memory, and the kernel's kills."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

import pytest

from xinference.process import memory
from xinference.process.memory import ENGINE_OOM_SCORE, exact_private_bytes, oom_kills, private_bytes
from xinference.process.memory_watch import MemoryWatch, OomWatch
from xinference.units import MIB

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Engine:
    """Processes whose memory the test decides."""

    def __init__(self) -> None:
        self.pids = [1]
        self.quick = self.exact = 0
        self.searches = 0

    def find(self) -> list[int]:
        self.searches += 1
        return self.pids

    def watch(self, ceiling: int) -> MemoryWatch:
        def quick(pids: Iterable[int]) -> int:
            return self.quick

        def exact(pids: Iterable[int]) -> int:
            return self.exact

        return MemoryWatch(ceiling, self.find, quick=quick, exact=exact)


def test_an_engine_above_its_ceiling_is_found_within_a_second() -> None:
    engine = Engine()
    watch = engine.watch(1000)
    assert [watch.excess(now) for now in (0, 1, 2)] == [None] * 3
    engine.quick = 1001
    assert watch.excess(2.5) is None, "no sample is due"
    assert watch.excess(3) == 1001


def test_without_a_ceiling_nothing_is_sampled() -> None:
    engine = Engine()
    watch = engine.watch(0)
    assert watch.excess(5) is None and watch.seconds_to_sample(5) is None and not engine.searches
    watch.ceiling, engine.quick = 10, 11
    assert watch.seconds_to_sample(6) == 0.0 and watch.excess(6) == 11


def test_new_processes_are_searched_for_less_often_than_memory_is_sampled() -> None:
    engine = Engine()
    watch = engine.watch(1000)
    for now in range(11):
        watch.excess(now)
    assert engine.searches == 3


def test_pages_that_forked_processes_share_count_once() -> None:
    engine = Engine()
    engine.pids, engine.quick, engine.exact = [1, 2], 2000, 900
    assert engine.watch(1000).excess(0) is None
    engine.exact = 1100
    assert engine.watch(1000).excess(0) == 1100
    engine.exact = 0  # the system does not tell
    assert engine.watch(1000).excess(0) == 2000


@linux
@pytest.mark.process
def test_memory_that_a_process_takes_counts_and_pages_of_a_file_do_not() -> None:
    code = (
        "import mmap, sys; print('a', flush=True); sys.stdin.readline()\n"
        "f = open(sys.executable, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); sum(m[::4096])\n"
        "print('b', flush=True); sys.stdin.readline(); x = bytearray(b'x') * (64 << 20); print('c', flush=True)\n"
        "sys.stdin.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin and process.stdout
        seen = []
        for _ in range(3):
            process.stdout.readline()
            seen.append((private_bytes([process.pid]), exact_private_bytes([process.pid])))
            process.stdin.write("\n")
            process.stdin.flush()
    for start, mapped, taken in zip(*seen, strict=True):
        assert 0 < start <= mapped < start + 2 * MIB
        assert mapped + 64 * MIB <= taken < mapped + 72 * MIB


def test_a_process_that_has_ended_takes_nothing() -> None:
    assert private_bytes([2**30]) == exact_private_bytes([2**30]) == 0


@linux
@pytest.mark.process
def test_the_kernel_ends_an_engine_before_the_server() -> None:
    score = "print(open('/proc/self/oom_score_adj').read())"
    code = f"from xinference.process.memory import raise_oom_score as r; {score}; r(); {score}"
    told = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, told.stdout.split())
    assert before < ENGINE_OOM_SCORE <= after


@linux
@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/app\n", {"cgroup/app/memory.events": "oom 9\noom_kill 3\noom_group_kill 0\n"}, 3),
        ("0::/host/path\n", {"cgroup/memory.events": "oom_kill 4\n"}, 4),
        ("4:memory:/a/b\n0::/\n", {"cgroup/memory/a/b/memory.oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        ("0::/\n", {"proc/vmstat": "nr_free_pages 1\noom_kill 6\n"}, 6),
        ("0::/\n", {}, None),
    ],
)
def test_the_closest_counter_of_the_kernels_kills_is_read(
    tmp_path: os.PathLike[str],
    monkeypatch: pytest.MonkeyPatch,
    cgroup: str,
    files: dict[str, str],
    expected: int | None,
) -> None:
    from pathlib import Path

    root = Path(tmp_path)
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(memory, "PROC", root / "proc")
    monkeypatch.setattr(memory, "CGROUPS", root / "cgroup")
    assert oom_kills() == expected


def test_only_a_recent_kill_can_concern_the_engine() -> None:
    count = 0
    watch = OomWatch(lambda: count)
    for now in range(20):
        watch.refresh(now)
    assert not watch.has_risen()
    count = 1
    watch.refresh(20)
    assert watch.has_risen(), "the engine may still be ending"
    for now in range(21, 40):
        watch.refresh(now)
    assert not watch.has_risen(), "another process was killed some time ago"
