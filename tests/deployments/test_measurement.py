"""What was measured corrects the next estimate, and only where it can be compared."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from xinference.catalog.registry import builtin_families
from xinference.deployments.measurement import correction, measurement
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.nodes.memory_use import MemoryUse, descendants, measure

REQUEST = LaunchRequest(model_name="smollm2-instruct")
VERSION = match(builtin_families(), REQUEST)
SIZING = Sizing(2047, 4, 100, 200, 60, later_bytes=10, correction_bytes=20)
DRAFT = LaunchDraft("m", REQUEST, VERSION, "llama.cpp", use_gpu=False, threads=2)
PLAN = SizedPlan(ResolvedLaunch(DRAFT, Path("/w.gguf")), Path("/w.gguf"), SIZING)


def test_the_bare_estimate_is_kept_so_that_corrections_do_not_add_up() -> None:
    kept = measurement(PLAN, MemoryUse(memory=355, gpu_memory=None))
    assert (kept.measured_bytes, kept.estimated_bytes) == (355, 100 + 200 + 60 - 10 - 20)
    assert correction(PLAN, [kept]) == 25


def test_the_newest_measurement_on_the_cpu_counts() -> None:
    kept = measurement(PLAN, MemoryUse(memory=355, gpu_memory=None))
    on_gpu, older = replace(kept, gpu_bytes=1, measured_bytes=999), replace(kept, measured_bytes=1)
    assert correction(PLAN, [on_gpu, kept, older]) == 25
    assert correction(ResolvedLaunch(replace(DRAFT, use_gpu=True), Path("/w.gguf")), [kept]) == 0
    assert correction(PLAN, []) == 0


def test_a_living_process_is_measured_and_a_dead_one_is_not() -> None:
    used = measure(os.getpid())
    assert used is not None and used.memory > 1 << 20
    assert measure(1 << 30) is None


def test_the_descendants_of_a_process_are_read_from_the_lists_of_its_threads(tmp_path: Path) -> None:
    for process, task, children in ((1, 1, "2 3"), (1, 7, "4"), (2, 2, ""), (3, 3, "5"), (4, 4, "")):
        folder = tmp_path / str(process) / "task" / str(task)
        folder.mkdir(parents=True)
        (folder / "children").write_text(children)
    assert sorted(descendants(1, tmp_path)) == [2, 3, 4, 5], "5 has exited meanwhile"


@pytest.mark.process
def test_the_descendants_of_a_process_of_another_system_are_known_too(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert child.pid in descendants(os.getpid(), tmp_path)
    finally:
        child.communicate()
