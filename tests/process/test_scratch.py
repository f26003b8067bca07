"""Nothing that an engine leaves in its temporary folder stays, in whichever way it ends."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.process.conftest import EngineHome
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.process import scratch
from xinference.process.home import own_home
from xinference.process.link import keeper_spec
from xinference.process.probe import Endpoint
from xinference.process.replica import Replica


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's temporary folder during a test; `tmp_path` is made before, in the real one."""
    # A socket's path must be short.
    folder = Path("/tmp") / f"xi-t{os.getpid()}"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    monkeypatch.undo()
    shutil.rmtree(folder)


async def _started(home: EngineHome, **script: Any) -> tuple[Replica, Path]:
    """A ready replica, and the file that it has left in its temporary folder."""
    replica = home.start(leave_file=True, **script)
    await replica.wait_ready()
    await until_async("the file is left", lambda: "left /" in home.log_path.read_text())
    left = next(line for line in home.log_path.read_text().splitlines() if "left /" in line)
    return replica, Path(left.rpartition(" ")[2])


@pytest.mark.process
async def test_an_engine_has_a_private_temporary_folder_which_is_deleted_at_its_end(
    home: EngineHome, temporary: Path
) -> None:
    replica, left = await _started(home)
    assert left.parent.parent == temporary and stat.S_IMODE(left.parent.stat().st_mode) == 0o700
    await replica.stop()
    assert not left.parent.exists() and not list(temporary.iterdir())


@pytest.mark.process
async def test_the_temporary_folder_of_an_engine_that_is_killed_with_its_keeper_is_deleted(
    home: EngineHome, temporary: Path
) -> None:
    replica, left = await _started(home, children=1)
    assert replica.snapshot.keeper_pid
    psutil.Process(replica.snapshot.keeper_pid).kill()
    await replica.wait_exited()
    assert not left.parent.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is a file on Linux only")
@pytest.mark.process
@pytest.mark.parametrize("how", ["stop", "kill", "hang"])
async def test_an_engine_that_is_killed_leaves_no_shared_memory(home: EngineHome, how: str) -> None:
    settings = dataclasses.replace(home.settings, stop_seconds=0.2)
    replica = home.start(settings, shared_memory=True, ignore_sigterm=True, children=1, detached_children=1)
    await replica.wait_ready()
    await until_async("the memory is made", lambda: "shared /dev" in home.log_path.read_text())
    line = next(line for line in home.log_path.read_text().splitlines() if "shared /dev" in line)
    shared = Path(line.rpartition(" ")[2])
    assert shared.exists() and replica.snapshot.engine_pid
    if how == "kill":
        psutil.Process(replica.snapshot.engine_pid).kill()
    elif how == "hang":
        replica._processes.kill_engine()
    else:
        await replica.stop()
    await replica.wait_exited()
    assert not shared.exists() and not home.living()


@pytest.mark.process
async def test_the_start_of_a_server_deletes_folders_that_nobody_uses_and_keeps_those_of_running_engines(
    home: EngineHome, temporary: Path, tmp_path: Path
) -> None:
    unused = scratch.scratch_folder(tmp_path / "other.sock")
    unused.mkdir()
    (unused / "socket").touch()
    replica, left = await _started(home)
    with own_home(Settings(home=tmp_path / "home")):
        assert not unused.exists() and left.exists()
    await replica.stop()


@pytest.mark.process
async def test_a_folder_that_somebody_else_could_have_made_is_not_used(home: EngineHome, temporary: Path) -> None:
    planted = scratch.scratch_folder(home.socket)
    planted.symlink_to(home.settings.home)
    replica, left = await _started(home)
    assert left.parent == temporary
    await replica.stop()
    assert home.settings.home.exists()
    left.unlink()
    planted.unlink()


def test_a_folder_whose_path_is_too_long_for_a_socket_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 60)))
    assert scratch.make_scratch(tmp_path / "r1.sock") is None


def _spec_env(home: EngineHome) -> dict[str, str]:
    """The variables of the keeper's spec for an engine with a folder of compiled code."""
    command = dataclasses.replace(home.command(), cache_variables={"COMPILED": "code"})
    spec = keeper_spec(command, Endpoint(1, "", "/", "/", "", True), home.settings, home.socket, home.log_path)
    return dict(spec["env"])


def test_compiled_code_is_in_a_private_folder_of_the_home(home: EngineHome) -> None:
    folder = Path(_spec_env(home)["COMPILED"])
    assert folder == home.settings.home / "compiled" / "code"
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_folder_of_compiled_code_that_the_servers_user_has_set_stays(
    home: EngineHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPILED", "/elsewhere")
    assert "COMPILED" not in _spec_env(home)


def _long(tmp_path: Path) -> Settings:
    """The settings of a home whose path is too long for a folder of sockets in it."""
    return Settings(home=tmp_path / ("x" * 80))


def test_a_server_with_a_long_home_leaves_no_folder_of_sockets(temporary: Path, tmp_path: Path) -> None:
    settings = _long(tmp_path)
    with own_home(settings):
        assert settings.run_dir.parent == temporary and settings.run_dir.exists()
    assert not list(temporary.iterdir())


@pytest.mark.process
async def test_the_last_keeper_deletes_the_folder_of_sockets_of_a_server_that_has_ended(
    temporary: Path, tmp_path: Path
) -> None:
    place = EngineHome(Settings(home=_long(tmp_path).home, grace_seconds=0.2, stop_seconds=2.0))
    with own_home(place.settings):
        replica = place.start()
        await replica.wait_ready()
        await replica.detach()
    assert place.settings.run_dir.exists()
    await until_async("the folder is deleted", lambda: not list(temporary.iterdir()))


def test_the_start_of_a_server_deletes_the_folder_of_sockets_of_a_server_that_was_killed(
    temporary: Path, tmp_path: Path
) -> None:
    killed = _long(tmp_path / "killed").run_dir
    killed.mkdir(mode=0o700)
    (killed / "server.lock").touch()
    with own_home(Settings(home=tmp_path / "home")):
        assert not killed.exists()


def test_the_start_of_a_server_keeps_the_folder_of_sockets_of_another_server(temporary: Path, tmp_path: Path) -> None:
    other = _long(tmp_path / "other")
    with own_home(other), own_home(Settings(home=tmp_path / "home")):
        assert other.run_dir.exists()
