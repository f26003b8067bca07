from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.errors import InUse, Problem
from xinference.process.home import is_free, own_home


def test_a_worker_whose_home_is_in_use_is_told_that_it_may_run_already(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with (
        own_home(settings),
        pytest.raises(InUse, match="Another process uses") as refused,
        own_home(settings, "worker"),
    ):
        pass
    assert (
        refused.value.hint == "The worker may run already. Another one on this machine needs another XINFERENCE_HOME."
    )


def test_a_home_belongs_to_the_server_that_has_locked_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert is_free(settings)
    with own_home(settings):
        assert not is_free(settings)
    assert is_free(settings)


def test_a_home_that_is_a_file_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(Problem, match="a file and not a folder"), own_home(Settings(home=tmp_path / "home")):
        pass


def test_a_server_of_an_earlier_release_owns_its_home_too(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.run_dir.mkdir()
    with (settings.run_dir / "server.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not is_free(settings)
    assert is_free(settings)


@pytest.mark.parametrize("target", ["nowhere", "home"])
def test_a_home_that_is_a_link_to_no_folder_is_named_as_one(tmp_path: Path, target: str) -> None:
    (tmp_path / "home").symlink_to(tmp_path / target)
    settings, message = Settings(home=tmp_path / "home"), "is a symbolic link to a folder that does not exist"
    with pytest.raises(Problem, match=message) as refused, own_home(settings):
        pass
    assert refused.value.hint == "Create that folder, or correct the link."


@pytest.mark.parametrize(("mode", "is_warned"), [(0o700, False), (0o755, False), (0o775, False), (0o777, True)])
def test_a_home_that_every_user_may_write_to_is_named_with_the_command_that_prevents_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, is_warned: bool
) -> None:
    tmp_path.chmod(mode)
    with own_home(Settings(home=tmp_path)):
        pass
    assert (f"run: chmod o-w {tmp_path}" in caplog.text) is is_warned


def test_a_home_of_another_user_is_named_with_both_users(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, owner = Settings(home=tmp_path), tmp_path.stat().st_uid
    settings.run_dir.mkdir(mode=0o700)
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    monkeypatch.setattr("xinference.process.home.private_run_dir", lambda settings: settings.run_dir)
    with own_home(settings):
        pass
    assert f"belongs to another user (uid {owner})" in caplog.text and f"(uid {owner + 1})" in caplog.text
