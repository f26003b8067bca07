"""Logs of engines have an end, and those that someone may still read stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xinference.process import log_files
from xinference.process.log_files import remove_log, remove_old_logs
from xinference.process.log_links import link_log, logs_of, uids_with_logs


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


def test_a_link_leads_from_the_uid_to_the_last_log_of_each_replica(tmp_path: Path) -> None:
    first, second, third = (write(tmp_path, number) for number in (1, 2, 3))
    link_log(first, "chat-rep1", 1)
    link_log(first, "m", 10)
    link_log(second, "m", 2)
    assert logs_of(tmp_path, "m") == {"m-rep2": second, "m-rep10": first}
    link_log(third, "m", 2)
    assert logs_of(tmp_path, "m") == {"m-rep2": third, "m-rep10": first}
    assert logs_of(tmp_path, "m-rep2") == {"m-rep2": third}
    assert logs_of(tmp_path, "chat-rep1") == {"chat-rep1-rep1": first}, "the uid of a model comes first"
    assert uids_with_logs(tmp_path) == ["m", "chat-rep1"] and logs_of(tmp_path, "chat") == {}
    remove_log(first)
    remove_old_logs(tmp_path, set())
    assert uids_with_logs(tmp_path) == ["m"]
    assert [link.name for link in (tmp_path / "models").iterdir()] == ["m-rep2.log"]


def test_a_log_without_a_link_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    link_log(write(tmp_path, 1), "m", 1)
    assert logs_of(tmp_path, "m") == {} and uids_with_logs(tmp_path) == []
