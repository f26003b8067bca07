"""What was measured corrects the next estimate, and only where it can be compared."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from xinference.catalog.registry import builtin_families
from xinference.deployments.measurement import correction, measurement
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.nodes.memory_use import MemoryUse, measure

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
