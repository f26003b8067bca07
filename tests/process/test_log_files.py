"""Logs of engines have an end, and those that someone may still read stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xinference.process import log_files
from xinference.process.log_files import remove_log, remove_old_logs


def write(folder: Path, number: int, *suffixes: str) -> Path:
    path = folder / f"r{number:010x}.log"
    for suffix in suffixes or ("",):
        file = path.with_name(path.name + suffix)
        file.write_text("said")
        os.utime(file, (number, number))
    return path


def test_only_the_newest_logs_and_those_in_use_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "LOGS_KEPT", 2)
    logs = [write(tmp_path, number, "", ".1") for number in range(6)]
    others = [tmp_path / name for name in ("server.log", "r1.log", "notes.txt")]
    for other in others:
        other.write_text("not of an engine")
    remove_old_logs(tmp_path, {logs[0]})
    left = {file.name for file in tmp_path.iterdir()}
    kept = (logs[0], logs[4], logs[5])
    assert left == {file.name for file in others} | {path.name for path in kept} | {f"{path.name}.1" for path in kept}


def test_no_folder_and_no_file_are_no_errors(tmp_path: Path) -> None:
    remove_old_logs(tmp_path / "logs", set())
    remove_log(tmp_path / "gone.log")
