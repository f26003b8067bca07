"""A model that is started again and again leaves one log: that of its last engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.deployments.doubles import World, turns


async def test_only_the_log_of_the_last_engine_stays(world: World, tmp_path: Path) -> None:
    world.starter.instant = True
    deployment = world.add(on_demand=True)
    await turns()
    logs = []
    for number in range(3):
        with deployment.wait("one"):
            await turns()
            assert deployment.ready
            (replica,) = world.starter.running
            logs.append(tmp_path / f"r{number}.log")
            logs[-1].write_text("said")
            replica.snapshot = replace(replica.snapshot, log_path=logs[-1])
        deployment.evict("another model needs its memory", only_idle=True)
        await turns()
        assert world.starter.running == []
    assert [log.exists() for log in logs] == [False, False, True]
    assert deployment.log_paths == [logs[-1]]
