"""What keeps a server from starting."""

from __future__ import annotations

import errno
import fcntl
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from xinference import server
from xinference.config import Settings
from xinference.errors import EXIT_IN_USE, InUse, Problem
from xinference.files.private_file import write_private
from xinference.listener import listen
from xinference.process import home
from xinference.process.home import own_home
from xinference.process.link import private_run_dir
from xinference.server_options import ServerOptions


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_given_port_that_is_in_use_is_a_conflict(busy_port: int) -> None:
    with pytest.raises(InUse) as refused, listen(Settings(port=busy_port), port_is_given=True):
        pass
    assert (refused.value.code, refused.value.status) == ("port_taken", 409)


def test_the_next_port_is_taken_for_a_default_one_that_is_in_use_and_the_log_names_both(
    busy_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with listen(Settings(port=busy_port), port_is_given=False) as listener:
        port = listener.getsockname()[1]
    assert port > busy_port
    (warning,) = caplog.messages
    assert warning.startswith(f"the port {busy_port} is in use: this server listens on {port};")


def test_a_home_has_one_server(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with own_home(settings):
        with pytest.raises(InUse) as refused, own_home(settings):
            pass
        assert (refused.value.code, refused.value.status) == ("home_taken", 409)
    with own_home(settings):
        pass  # it is free again


@pytest.mark.parametrize("all_of_it", [True, False])
def test_a_home_stays_locked_when_the_system_cleans_its_folder_of_sockets_up(tmp_path: Path, all_of_it: bool) -> None:
    settings = Settings(home=tmp_path)
    with own_home(settings):
        if all_of_it:
            shutil.rmtree(settings.run_dir)
        else:
            (settings.run_dir / "server.lock").unlink()
        with pytest.raises(InUse), own_home(settings):
            pass


def test_a_file_system_that_locks_no_folders_has_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = fcntl.flock

    def only_files(file: int | TextIO, operation: int) -> None:
        if isinstance(file, int):
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", only_files)
    settings = Settings(home=tmp_path)
    with own_home(settings), pytest.raises(InUse), own_home(settings):
        pass
    assert (tmp_path / "server.lock").exists()


def test_a_server_of_an_earlier_release_is_noticed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with (private_run_dir(settings) / "server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InUse), own_home(settings):
            pass


def test_a_home_that_cannot_be_created_is_a_problem_and_no_defect(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem) as refused, own_home(Settings(home=tmp_path / "file" / "home")):
        pass
    assert refused.value.code == "cannot_write"


async def test_a_server_that_cannot_write_the_files_which_announce_it_writes_them_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, write, attempts = Settings(home=tmp_path), write_private, [0]

    def full_at_first(file: Path, content: bytes) -> None:
        attempts[0] += 1
        if attempts[0] < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, content)

    monkeypatch.setattr(home, "write_private", full_at_first)
    monkeypatch.setattr(server, "ANNOUNCE_SECONDS", 0.0)
    await server._announce(settings, "127.0.0.1", 9997, "sk-owner")
    assert settings.server_file.exists() and settings.owner_key_file.read_text() == "sk-owner"


@pytest.mark.parametrize(("arguments", "status"), [(["--port", "PORT"], EXIT_IN_USE), (["--port", "70000"], 1)])
def test_the_exit_status_distinguishes_a_port_in_use_from_other_failures(
    arguments: list[str], status: int, busy_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XINFERENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["server", *(word.replace("PORT", str(busy_port)) for word in arguments)])
    assert server.main() == status


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_named_before_the_keys(host: str, tmp_path: Path) -> None:
    with pytest.raises(Problem, match=f"Can't listen on the host {host}") as refused:
        server.run(ServerOptions(host=host, home=str(tmp_path)))
    assert "keys" not in str(refused.value)


#: Libraries of single parts: of probes, of hubs, of the client, of downloads, of the management API.
ON_DEMAND = ("aiohttp", "huggingface_hub", "modelscope_hub", "httpx2", "rich", "requests", "fastapi", "pydantic")


@pytest.mark.process
def test_the_start_imports_no_library_of_a_single_part() -> None:
    script = f"import sys, xinference.server; print([name for name in {ON_DEMAND!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
