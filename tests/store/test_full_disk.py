"""A store on a disk that is really full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.small_disk import SmallDisk, small_disk
from xinference.config import Settings
from xinference.errors import Problem
from xinference.process.home import announce, own_home
from xinference.store.database import Store

pytestmark = pytest.mark.process


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk() as disk:
        yield disk


def test_a_store_opens_and_is_read_though_its_disk_is_full(disk: SmallDisk) -> None:
    path = disk.path / "xinference.db"
    with closing(Store(path)) as store:
        store.add_deployment("m", "{}")
        store.add_replica("r1", "m", 0)
    disk.fill()
    with closing(Store(path)) as store:
        assert [row.uid for row in store.deployments()] == ["m"]
        with pytest.raises(Problem) as refused:
            store.add_deployment("large", "x" * 100_000)
        assert (refused.value.code, refused.value.status) == ("disk_full", 507)
        store.add_event("m", "INFO", "start", "x" * 100_000)
        store.remove_replica("r1")
        disk.free()
        store.add_deployment("later", "{}")
        assert store.replicas("m") == [] and len(store.events("m")) == 1
    with closing(Store(path)) as store:
        assert [row.uid for row in store.deployments()] == ["m", "later"]


def test_a_new_store_on_a_full_disk_is_refused_by_type(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(Problem) as refused:
        Store(disk.path / "xinference.db")
    assert refused.value.code == "disk_full"


def test_a_home_on_a_full_disk_is_locked_and_announced_later(disk: SmallDisk) -> None:
    settings = Settings(home=disk.path / "home")
    settings.home.mkdir()
    disk.fill()
    with own_home(settings):
        assert not announce(settings, "127.0.0.1", 9997, "sk-owner")
        assert not list(settings.home.glob("*.tmp")), "no empty draft stays"
        disk.free()
        assert announce(settings, "127.0.0.1", 9997, "sk-owner") and settings.server_file.exists()
