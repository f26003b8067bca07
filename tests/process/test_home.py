from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.errors import Problem
from xinference.process.home import is_free, own_home


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
