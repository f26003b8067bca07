"""The folder of saved states in memory is deleted when nobody uses it any more."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xinference.files import state_folders
from xinference.process.state_root import own_states

HOME = Path("/home/user/.xinference")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file system in memory."""
    monkeypatch.setattr(state_folders, "IN_MEMORY", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """An engine that uses the folder."""
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    yield
    os.close(handle)


def with_state(home: Path) -> Path:
    """The folder of a home with one state, as a killed server leaves it."""
    folder = state_folders.memory_folder(home, "m")
    state_folders.make_private(folder)
    (folder / "a.state").write_bytes(b"a")
    return folder.parent


def test_a_server_deletes_its_folder_at_its_end(memory: Path) -> None:
    with own_states(HOME):
        root = with_state(HOME)
        assert root.stat().st_mode & 0o777 == 0o700
    assert not list(memory.iterdir())


def test_the_folder_stays_while_an_engine_uses_it(memory: Path) -> None:
    root = with_state(HOME)
    with held(root):
        with own_states(HOME):
            assert list(root.glob("*/a.state"))
        assert list(root.glob("*/a.state"))


def test_a_server_deletes_what_killed_ones_have_left(memory: Path) -> None:
    left, used = with_state(Path("/left")), with_state(Path("/used"))
    own = with_state(HOME)
    foreign = memory / "of-another-program"
    foreign.mkdir()
    with held(used), own_states(HOME):
        assert not left.exists()
        assert used.exists()
        assert foreign.exists()
        assert not list(own.iterdir())


def test_a_link_is_not_followed(memory: Path) -> None:
    target = memory / "documents"
    target.mkdir()
    root = state_folders.memory_root(HOME)
    root.symlink_to(target)
    with own_states(HOME):
        assert target.exists()
    assert target.exists()
    assert target.stat().st_mode & 0o777 != 0o700
