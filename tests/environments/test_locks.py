"""The locks that we ship."""

from __future__ import annotations

import re

import pytest

from tests.environments.newest import newest_spec
from xinference.environments.lock import Lock, parse_lock, read_locks
from xinference.errors import Problem

LINE = re.compile(r"[a-z0-9-]+===\S+( --hash=sha256:[0-9a-f]{64})+")


@pytest.mark.parametrize("lock", read_locks(), ids=lambda lock: lock.spec.name)
def test_every_package_is_pinned_by_version_and_hash(lock: Lock) -> None:
    lines = lock.requirements_text.splitlines()
    assert lines
    assert not [line for line in lines if not LINE.fullmatch(line)]
    assert len(lock.distributions) == len(lines)


@pytest.mark.parametrize("lock", read_locks(), ids=lambda lock: lock.spec.name)
def test_what_is_left_out_is_not_in_the_lock(lock: Lock) -> None:
    assert not lock.distributions & set(lock.recipe.leave_out)


def test_a_cpu_lock_has_torch_for_cpus_and_no_packages_for_gpus() -> None:
    for lock in read_locks():
        if lock.recipe.accelerator == "cpu":
            assert re.search(r"^torch===\S+\+cpu ", lock.requirements_text, re.MULTILINE)
            assert not [name for name in lock.distributions if name.startswith("nvidia-")]


def test_vllm_on_cpus_finds_the_version_that_loads_its_cpu_kernels() -> None:
    lock = next(lock for lock in read_locks() if (lock.recipe.engine, lock.recipe.accelerator) == ("vLLM", "cpu"))
    assert [(info.name, info.version) for info in lock.recipe.dist_info] == [("vllm", f"{lock.recipe.version}+cpu")]


def test_vllm_has_a_lock_for_cuda_and_sglang_none_for_cpus() -> None:
    assert newest_spec("SGLang", "cpu") is None
    assert newest_spec("vLLM", "cuda") is not None


def test_size_and_hints_do_not_change_the_name_but_packages_do() -> None:
    lock = read_locks()[0]
    resized = parse_lock(re.sub(r"size_bytes = \S+", "size_bytes = 7", lock.recipe_text), lock.requirements_text, "it")
    assert resized.folder_name == lock.folder_name
    changed = parse_lock(lock.recipe_text, lock.requirements_text.replace("===", "===0", 1), "it")
    assert changed.folder_name != lock.folder_name


def test_an_unknown_field_is_refused() -> None:
    lock = read_locks()[0]
    with pytest.raises(Problem) as caught:
        parse_lock("sizes = 1\n" + lock.recipe_text, lock.requirements_text, "it.toml")
    assert caught.value.code == "bad_lock"
    assert "sizes" in caught.value.cause
