"""A store that is full or locked for a while: models go on, launches get a typed answer, and all heals by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.doubles import FakeReplica, World, turns, wanted
from xinference.deployments import restart_count
from xinference.deployments.deployment import Deployment
from xinference.deployments.snapshot import Status
from xinference.error_codes import Code
from xinference.errors import Problem


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_count, "STORE_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(restart_count, "STORE_RETRIES", 10**6)
    monkeypatch.setattr("xinference.store.connection.WRITE_SECONDS", 0.0)


class Trouble:
    """The ways in which a store cannot be written for a while."""

    def __init__(self, world: World, path: Path) -> None:
        self._world = world
        self._path = path

    @contextmanager
    def full(self) -> Iterator[None]:
        db = self._world.store._db
        size = db.execute("PRAGMA max_page_count").fetchone()[0]
        db.execute("CREATE TABLE rest(text TEXT)")
        db.execute("PRAGMA max_page_count=1")
        with pytest.raises(sqlite3.OperationalError, match="full"):  # fill the last page to its end
            while True:
                db.execute("INSERT INTO rest VALUES (?)", ("x" * 200,))
        yield
        db.execute(f"PRAGMA max_page_count={size}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        other = sqlite3.connect(self._path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
        other.close()


@pytest.fixture
def trouble(world: World, tmp_path: Path) -> Trouble:
    return Trouble(world, tmp_path / "x.db")


async def launched(world: World, **request: Any) -> tuple[Deployment, FakeReplica]:
    world.starter.instant = True
    deployment = world.add(**request)
    await turns()
    assert deployment.ready
    return deployment, world.starter.started[0]


async def _followed(world: World) -> list[dict[str, Any]]:
    return [event async for event in world.events.follow("one", None)]


async def test_a_launch_goes_on_when_the_store_can_be_written_again(world: World, trouble: Trouble) -> None:
    world.starter.instant = True
    world.preparation.held.add("environment")
    deployment = world.add()
    await turns()
    with trouble.locked():
        world.preparation.release()
        await turns()
        assert deployment.problem is None and deployment.launching and world.starter.started == []
    await turns()
    assert deployment.ready and len(world.store.replicas("one")) == 1
    assert any("locked" in content for content in world.contents()), "users read why it waited"


async def test_a_launch_whose_store_stays_locked_fails_by_type(
    world: World, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_count, "STORE_RETRIES", 2)
    world.preparation.held.add("environment")
    deployment = world.add()
    following = asyncio.create_task(_followed(world))
    await turns()
    with trouble.locked():
        world.preparation.release()
        await turns()
        await turns()
        assert deployment.problem is not None and deployment.problem.code == "store_busy"
        assert deployment.status is Status.ERROR, "it is shown as it is, though that cannot be stored"
        assert (await following)[-1]["event_type"] == "FAILED", "whoever waits for the launch is told"
    assert world.store.write_notes()
    assert world.store.deployments()[0].problem is not None


@pytest.mark.parametrize("kind", ["full", "locked"])
async def test_an_engine_that_dies_meanwhile_is_started_again_afterwards(
    world: World, trouble: Trouble, kind: str
) -> None:
    deployment, replica = await launched(world)
    with getattr(trouble, kind)():
        replica.die()
        await turns()
        assert deployment.problem is None
        assert deployment.status in (Status.RECOVERING, Status.READY)
    await turns()
    await turns()
    assert deployment.ready and deployment.status is Status.READY
    assert world.store.write_notes()
    (row,) = world.store.replicas("one")
    assert row.replica_id == world.starter.running[0].snapshot.replica_id, "the row of the dead one is gone"


@pytest.mark.parametrize("kind", ["full", "locked"])
async def test_a_model_on_demand_is_loaded_afterwards(world: World, trouble: Trouble, kind: str) -> None:
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    with deployment.wait("one"):
        with getattr(trouble, kind)():
            await turns()
            assert deployment.problem is None
        await turns()
        await turns()
        assert deployment.ready


@pytest.mark.parametrize("kind", ["full", "locked"])
async def test_a_change_of_the_replicas_is_refused_by_type_and_changes_nothing(
    world: World, trouble: Trouble, kind: str
) -> None:
    deployment, _ = await launched(world, replica=2)
    with getattr(trouble, kind)():
        world.events.add("one", "INFO", "start", "y" * 5000)  # waits, and is to be written before the change
        with pytest.raises(Problem) as refused:
            await deployment.remove_replica(1) if kind == "locked" else await deployment.add_replica()
        assert refused.value.code in ("store_busy", "disk_full")
        assert deployment.ready and len(world.starter.running) == 2
    assert wanted(world.store) == 2


async def test_an_added_replica_that_cannot_be_started_is_taken_back_though_the_store_is_locked(
    world: World, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, _ = await launched(world)
    world.starter.instant = False
    added = asyncio.create_task(deployment.add_replica())
    await turns()
    with trouble.locked():
        world.starter.running[-1].die()
        await turns()
        with pytest.raises(Problem, match="before it was ready"):
            await added
        assert deployment.ready and deployment.problem is None
    assert world.store.write_notes() and wanted(world.store) == 1


@pytest.mark.parametrize("kind", ["full", "locked"])
async def test_a_deployment_ends_though_the_store_cannot_be_written(world: World, trouble: Trouble, kind: str) -> None:
    deployment, replica = await launched(world)
    with getattr(trouble, kind)():
        await deployment.end("terminate")
        assert replica.stopped and world.starter.running == []
    assert world.store.write_notes() and world.store.replicas("one") == []


async def test_a_measurement_that_cannot_be_read_keeps_no_launch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.store._db.execute("DROP TABLE measurements")
    deployment, _ = await launched(world)
    assert deployment.ready


async def test_loads_that_the_disk_prevents_do_not_fail_a_model_on_demand(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_count, "STORE_RETRIES", 0)
    deployment = world.add(on_demand=True)
    await turns()
    world.starter.refusal = Problem(Code.DISK_FULL, "The disk is full.")
    for _ in range(world.settings.restart_limit + 3):
        with deployment.wait("one"):
            await turns()
    assert deployment.problem is None and deployment.status is Status.UNLOADED
    world.starter.refusal, world.starter.instant = None, True
    with deployment.wait("one"):
        await turns()
        assert deployment.ready


@pytest.mark.parametrize("code", [Code.CANNOT_WRITE, Code.STORE_UNUSABLE])
async def test_an_engine_is_started_again_whatever_kept_its_start_from_being_stored(world: World, code: Code) -> None:
    deployment, replica = await launched(world)
    world.starter.refusal = Problem(code, "No file descriptor is free.")
    replica.die()
    await turns()
    assert deployment.problem is None
    world.starter.refusal = None
    await turns()
    assert deployment.ready
