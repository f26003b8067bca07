"""The file that tells the probes of a container whether the worker is linked."""

from __future__ import annotations

from pathlib import Path

from xinference.nodes.joining import WorkerHome


def test_a_file_exists_while_the_worker_is_linked(tmp_path: Path) -> None:
    home, linked = WorkerHome(tmp_path), tmp_path / "linked"
    home.note_link(is_up=True)
    assert linked.exists()
    home.note_link(is_up=False)
    home.note_link(is_up=False)
    assert not linked.exists()


def test_a_disk_that_cannot_be_written_ends_no_worker(tmp_path: Path) -> None:
    home = WorkerHome(tmp_path / "missing")
    home.note_link(is_up=True)
    home.note_link(is_up=False)
    assert not (tmp_path / "missing").exists()
