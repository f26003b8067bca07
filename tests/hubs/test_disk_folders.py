from __future__ import annotations

from pathlib import Path

import pytest

from xinference.config import Settings
from xinference.control import machine_metrics
from xinference.files.disk_space import free_bytes, nearest_existing
from xinference.hubs.disk_folders import disk_folders


def test_the_cache_is_the_folder_into_which_weights_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "weights"))
    folders = disk_folders(Settings(home=tmp_path / "home"))
    assert folders == {
        "home": tmp_path / "home",
        "cache": tmp_path / "weights",
        "environments": tmp_path / "home" / "environments",
    }


def test_the_metrics_have_the_disk_of_each_folder(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert machine_metrics.read(settings, ()).disks.keys() == disk_folders(settings).keys()


def test_the_disk_of_a_folder_that_does_not_exist_is_that_of_its_nearest_parent(tmp_path: Path) -> None:
    missing = tmp_path / "a" / "b"
    assert nearest_existing(missing) == tmp_path
    assert free_bytes(missing) > 0
