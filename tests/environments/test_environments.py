from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.environments.fake_engine import SPEC, FakeEngine, unheard
from tests.support.polling import until
from xinference.environments.spec import EnvironmentSpec
from xinference.errors import Problem

GO = threading.Event()


@pytest.mark.process
def test_an_environment_is_built_found_and_works(engine: FakeEngine) -> None:
    environments = engine.make()
    assert environments.find(SPEC) is None
    python = environments.install(SPEC, unheard, GO)
    assert environments.find(SPEC) == python
    assert python.is_relative_to(engine.installed_folder)
    run = subprocess.run(
        [python, "-c", "import tiny_engine; print(tiny_engine.answer)"], capture_output=True, text=True
    )
    assert run.stdout == "42\n"
    assert environments.verify(SPEC, GO) == python
    assert not engine.leftovers()


@pytest.mark.process
def test_nothing_in_it_names_the_folder_it_was_built_in(engine: FakeEngine) -> None:
    folder = engine.make().install(SPEC, unheard, GO).parents[1]
    named = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".pyc" and b".building-" in f.read_bytes()]
    assert not named


@pytest.mark.process
def test_the_second_install_builds_nothing(engine: FakeEngine) -> None:
    engine.make().install(SPEC, unheard, GO)
    for wheel in engine.wheels.iterdir():
        wheel.unlink()
    assert engine.environments().install(SPEC, unheard, GO)


@pytest.mark.process
def test_two_at_once_build_it_once(engine: FakeEngine) -> None:
    count = engine.root / "count"
    engine.verify = f"open({str(count)!r}, 'a').write('x'); import tiny_engine"
    engine.make()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(engine.environments().install, SPEC, unheard, GO) for _ in range(2)]
        pythons = {job.result() for job in jobs}
    assert len(pythons) == 1
    assert count.read_text() == "x"


@pytest.mark.process
def test_the_one_that_waits_for_another_build_can_be_cancelled(engine: FakeEngine) -> None:
    here, go_on = engine.root / "here", engine.root / "go-on"
    engine.verify = (
        f"import os, time; open({str(here)!r}, 'w')\nwhile not os.path.exists({str(go_on)!r}): time.sleep(.02)"
    )
    environments = engine.make()
    cancelled = threading.Event()
    cancelled.set()
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(environments.install, SPEC, unheard, GO)
        until("the build has begun", here.exists)
        with pytest.raises(Problem) as caught:
            engine.environments().install(SPEC, unheard, cancelled)
        go_on.touch()
        assert building.result()
    assert caught.value.code == "cancelled"


@pytest.mark.process
def test_an_engine_that_cannot_be_imported_leaves_nothing(engine: FakeEngine) -> None:
    engine.verify = "import tiny_engine.kernels"
    environments = engine.make()
    with pytest.raises(Problem) as caught:
        environments.install(SPEC, unheard, GO)
    assert (caught.value.code, caught.value.status) == ("environment_failed", 502)
    assert "No module named 'tiny_engine.kernels'" in caught.value.log_tail[-1]
    assert environments.find(SPEC) is None
    assert not engine.whole()
    assert not engine.leftovers()


@pytest.mark.process
def test_a_wheel_with_another_hash_is_refused(engine: FakeEngine) -> None:
    environments = engine.make()
    wheel = next(engine.wheels.glob("tiny_dependency*"))
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    with pytest.raises(Problem) as caught:
        environments.install(SPEC, unheard, GO)
    assert caught.value.code == "environment_failed"
    assert "Hash mismatch" in "\n".join(caught.value.log_tail)
    assert not engine.whole()


@pytest.mark.process
def test_a_package_that_is_nowhere_is_named_in_the_installers_words(engine: FakeEngine) -> None:
    environments = engine.make()
    next(engine.wheels.glob("tiny_dependency*")).unlink()
    with pytest.raises(Problem) as caught:
        environments.install(SPEC, unheard, GO)
    assert caught.value.code == "environment_failed"
    assert "tiny-dependency" in "\n".join(caught.value.log_tail)


@pytest.mark.process
def test_a_killed_build_is_never_taken_for_whole_and_ends_its_children(engine: FakeEngine) -> None:
    pid_file = engine.root / "pid"
    engine.verify = (
        f"import os, pathlib, time; pid = pathlib.Path({str(pid_file)!r}); again = pid.exists()\n"
        "pid.with_suffix('.new').write_text(str(os.getpid())); pid.with_suffix('.new').rename(pid)\n"
        "if not again: time.sleep(60)"
    )
    environments = engine.make()
    builder = subprocess.Popen([sys.executable, "-m", "tests.environments.build_in_process", str(engine.root)])
    try:
        until("the engine is imported", pid_file.exists)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    assert engine.leftovers()
    assert environments.find(SPEC) is None
    if sys.platform == "linux":
        importing = int(pid_file.read_text())
        until("the import has ended", lambda: not psutil.pid_exists(importing))
    assert environments.install(SPEC, unheard, GO)
    assert not engine.leftovers()


@pytest.mark.process
def test_a_cancelled_build_leaves_nothing(engine: FakeEngine) -> None:
    engine.verify = "import time; time.sleep(60)"
    environments = engine.make()
    cancelled = threading.Event()

    def cancel_late(done: int, total: int | None, name: str) -> None:
        if name.startswith("importing"):
            cancelled.set()

    with pytest.raises(Problem) as caught:
        environments.install(SPEC, cancel_late, cancelled)
    assert caught.value.code == "cancelled"
    assert not engine.whole()
    assert not engine.leftovers()


@pytest.mark.process
def test_what_killed_builds_of_older_releases_left_is_cleared(engine: FakeEngine) -> None:
    for name in (".building-old-0.1-cpu-0123456789ab", ".removing-old-0.2-cpu-0123456789ab"):
        (engine.installed_folder / name / "bin").mkdir(parents=True)
    engine.make().install(SPEC, unheard, GO)
    assert not engine.leftovers()


@pytest.mark.process
def test_a_folder_without_a_marker_is_replaced(engine: FakeEngine) -> None:
    environments = engine.make()
    folder = environments.install(SPEC, unheard, GO).parents[1]
    (folder / "environment.json").unlink()
    assert environments.find(SPEC) is None
    assert environments.install(SPEC, unheard, GO).parents[1] == folder


@pytest.mark.process
def test_a_new_lock_gets_a_new_folder_and_the_old_one_stays(engine: FakeEngine) -> None:
    old = engine.make().install(SPEC, unheard, GO)
    engine.verify = "import tiny_engine, tiny_dependency"
    environments = engine.make()
    assert environments.find(SPEC) is None
    assert environments.install(SPEC, unheard, GO) != old
    assert old.exists()
    assert {entry.python for entry in environments.entries()} == {old, environments.find(SPEC)}


@pytest.mark.process
def test_an_outdated_environment_is_marked_and_removed_by_the_name_of_its_folder(engine: FakeEngine) -> None:
    old = engine.make().install(SPEC, unheard, GO)
    engine.verify = "import tiny_engine, tiny_dependency"
    environments = engine.make()
    new = environments.install(SPEC, unheard, GO)
    assert {entry.python: entry.is_outdated for entry in environments.entries()} == {old: True, new: False}
    assert environments.remove_folder("nothing", GO) is None
    removed = environments.remove_folder(old.parents[1].name, GO)
    assert removed is not None and removed.python == old and removed.is_outdated
    assert not old.exists() and environments.find(SPEC) == new


@pytest.mark.process
def test_an_environment_that_is_no_longer_shipped_is_still_found(engine: FakeEngine) -> None:
    python = engine.make().install(SPEC, unheard, GO)
    for file in engine.locks.iterdir():
        file.unlink()
    environments = engine.environments()
    assert environments.find(SPEC) == python
    assert environments.remove(SPEC, GO)
    assert not engine.whole()


@pytest.mark.process
def test_a_removed_environment_is_gone_and_so_is_the_cache_it_alone_used(engine: FakeEngine) -> None:
    environments = engine.make()
    environments.install(SPEC, unheard, GO)
    assert environments.remove(SPEC, GO) > 0
    assert environments.find(SPEC) is None
    assert not engine.whole()
    assert not list((engine.home / "cache" / "uv").rglob("tiny_engine/__init__.py"))
    with pytest.raises(Problem) as caught:
        environments.remove(SPEC, GO)
    assert caught.value.code == "environment_missing"


@pytest.fixture
def running(engine: FakeEngine) -> Iterator[int]:
    """A process of the engine's that runs: during its start, the system shows no command line of it."""
    python = engine.make().install(SPEC, unheard, GO)
    program = "import time; print('running', flush=True); time.sleep(60)"
    with subprocess.Popen([python, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        yield process.pid
        process.kill()


@pytest.mark.process
def test_an_environment_in_use_is_not_removed(engine: FakeEngine, running: int) -> None:
    environments = engine.environments()
    with pytest.raises(Problem) as caught:
        environments.remove(SPEC, GO)
    assert caught.value.code == "environment_in_use"
    assert str(running) in caught.value.cause
    assert environments.find(SPEC)


@pytest.mark.process
def test_what_a_lock_adds_can_be_read_as_a_distribution(engine: FakeEngine) -> None:
    engine.more = {"dist_info": [{"name": "other", "version": "2.0+cpu"}]}
    engine.verify = "from importlib.metadata import version; assert version('other') == '2.0+cpu'"
    assert engine.make().install(SPEC, unheard, GO)


@pytest.mark.process
def test_offline_says_how_to_do_without_a_network(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(Problem) as caught:
        engine.make(offline=True).install(SPEC, unheard, GO)
    assert (caught.value.code, caught.value.status) == ("offline", 503)
    assert "env install --from" in (caught.value.hint or "")


def test_a_disk_without_room_is_said_before_anything_is_fetched(engine: FakeEngine) -> None:
    engine.more = {"size_bytes": 1 << 60}
    with pytest.raises(Problem) as caught:
        engine.make().install(SPEC, unheard, GO)
    assert (caught.value.code, caught.value.status) == ("disk_full", 507)
    assert not engine.leftovers()


def test_another_platforms_lock_is_refused(engine: FakeEngine) -> None:
    engine.more = {"platform": "plan9-mips"}
    with pytest.raises(Problem) as caught:
        engine.make().install(SPEC, unheard, GO)
    assert caught.value.code == "environment_unavailable"
    assert "plan9-mips" in caught.value.cause


def test_an_unknown_environment_names_the_known_ones(engine: FakeEngine) -> None:
    with pytest.raises(Problem) as caught:
        engine.make().install(EnvironmentSpec("Tiny", "2.0", "cpu"), unheard, GO)
    assert caught.value.code == "environment_unknown"
    assert SPEC.name in (caught.value.hint or "")


@pytest.mark.process
def test_our_own_environment_is_not_touched(engine: FakeEngine) -> None:
    site_packages = Path(os.__file__).parent, Path(psutil.__file__).parents[1]
    before = [sorted(path.name for path in folder.iterdir()) for folder in site_packages]
    engine.make().install(SPEC, unheard, GO)
    assert before == [sorted(path.name for path in folder.iterdir()) for folder in site_packages]
