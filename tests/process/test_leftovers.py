"""The engines that a worker has stopped are looked for, and what is left is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from xinference.process import leftovers
from xinference.process.leftovers import end_keepers

RUN_DIR = Path("run")


def _ended(monkeypatch: pytest.MonkeyPatch, found: Iterator[dict[str, list[int]]], seconds: float) -> list[Path]:
    """The sockets of the keepers that are killed if the scans find these ones."""
    killed: list[Path] = []
    monkeypatch.setattr(leftovers, "keepers_of", lambda run_dir: next(found))
    monkeypatch.setattr(leftovers, "end_leftovers", lambda socket_path, engine: killed.append(socket_path))
    monkeypatch.setattr("xinference.process.leftovers.time.sleep", lambda seconds: None)
    names = end_keepers(RUN_DIR, seconds)
    assert killed == [RUN_DIR / f"{name}.sock" for name in names]
    return killed


def test_keepers_that_end_by_themselves_are_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ended(monkeypatch, iter([{"r1": [7], "r2": [8]}, {"r2": [8]}, {}]), 60.0) == []


def test_a_keeper_that_does_not_end_in_its_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ended(monkeypatch, iter([{"r2": [8], "r1": [7, 9]}]), 0.0) == [RUN_DIR / "r1.sock", RUN_DIR / "r2.sock"]
