"""What an engine deletes at its end: the saved states of models, and nothing else in the folder that contains them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xinference.engines.llama_cpp import server
from xinference.files import state_folders


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model's states, as a server makes it, with a saved state."""
    monkeypatch.setattr(state_folders, "IN_MEMORY", tmp_path)
    folder = state_folders.prepare(tmp_path / "home", "a model", "its weights")
    (folder / "state").touch()
    return folder


def _end(folder: Path) -> None:
    """The end of an engine that saves its states in `folder`."""
    handle = server.hold_states(f"{folder}/")
    assert handle is not None
    server.delete_states(f"{folder}/", handle)
    os.close(handle)


def test_the_end_of_the_last_engine_deletes_the_saved_states(states: Path) -> None:
    _end(states)
    assert not states.parent.exists()


def test_the_end_of_an_engine_keeps_all_that_is_beside_its_folder(tmp_path: Path) -> None:
    """A person who starts the program names a folder in ``/tmp``."""
    for name in ("states", "others", "0123456789abcdef"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    _end(tmp_path / "states")
    assert sorted(path.name for path in tmp_path.rglob("file")) == ["file"] * 3


def test_the_end_of_an_engine_follows_no_link_and_keeps_what_else_is_in_the_folder(
    states: Path, tmp_path: Path
) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / server.STAMP).touch()
    (states.parent / ("f" * 16)).symlink_to(linked)
    (states.parent / "other").touch()
    _end(states)
    assert not states.exists() and (linked / server.STAMP).exists() and (states.parent / "other").exists()


def test_the_end_of_an_engine_keeps_the_states_that_another_one_uses(states: Path) -> None:
    other = server.hold_states(f"{states}/")
    assert other is not None
    _end(states)
    assert (states / "state").exists()
    os.close(other)
