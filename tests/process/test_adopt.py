"""Engines outlive their server, for a while."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.process.conftest import EngineHome
from tests.support.polling import until_async
from xinference.errors import Problem
from xinference.process.link import KeeperLink
from xinference.process.replica import Replica
from xinference.process.snapshot import ReplicaState

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]


async def _run_and_kill_server(home: EngineHome, grace_seconds: float, **script: Any) -> dict[str, int]:
    """What the killed server knew of its replica."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.process.doomed_server"),
        *(str(home.settings.home), str(grace_seconds), json.dumps(script)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert server.stdout
    known: dict[str, int] = json.loads(await asyncio.wait_for(server.stdout.readline(), 30))
    server.kill()
    await server.wait()
    return known


async def test_an_engine_outlives_a_killed_server_and_is_adopted(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 30.0)

    replica = await Replica.adopt("r1", home.settings)

    assert replica is not None
    await replica.wait_ready()
    seen = replica.snapshot
    assert seen.state is ReplicaState.READY
    assert {"engine_pid": seen.engine_pid, "keeper_pid": seen.keeper_pid, "port": seen.port} == known
    assert (seen.api_key, seen.context, seen.log_path) == ("engine-key", {"deployment": "d1"}, home.log_path)
    ended = await replica.stop()
    assert ended is not None and ended.requested
    assert not home.living() and not home.socket.exists()


async def test_without_an_heir_everything_is_gone_after_the_grace_period(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 1.0, children=1, detached_children=1)
    assert psutil.pid_exists(known["engine_pid"])
    await until_async("no process is left", lambda: not home.living())
    assert not home.socket.exists()


async def test_an_engine_that_still_loads_is_adopted_as_starting(home: EngineHome) -> None:
    await _run_and_kill_server(home, 30.0, health_delay=3.0)
    replica = await Replica.adopt("r1", home.settings)
    assert replica is not None and replica.state is ReplicaState.STARTING
    await replica.wait_ready()
    await replica.stop()


async def test_an_engine_that_died_alone_is_adopted_as_exited(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 30.0)
    os.kill(known["engine_pid"], signal.SIGKILL)
    await until_async("the engine has ended", lambda: not psutil.pid_exists(known["engine_pid"]))
    replica = await Replica.adopt("r1", home.settings)
    assert replica is not None
    assert (await replica.wait_exited()).signal == "SIGKILL"
    assert replica.state is ReplicaState.EXITED
    with pytest.raises(Problem):
        await replica.wait_ready()
    assert not home.living() and not home.socket.exists()


async def test_a_detached_engine_goes_on_and_can_be_adopted_again(home: EngineHome) -> None:
    first = home.start(dataclasses.replace(home.settings, grace_seconds=30.0))
    await first.wait_ready()
    await first.detach()
    with pytest.raises(Problem):
        await first.wait_exited()
    assert await first.stop() is None

    second = await Replica.adopt("r1", home.settings)

    assert second is not None and second.snapshot.engine_pid == first.snapshot.engine_pid
    await second.stop()


async def test_a_second_owner_replaces_the_first_and_the_engine_lives(home: EngineHome) -> None:
    first = home.start()
    await first.wait_ready()
    second = await Replica.adopt("r1", home.settings)
    assert second is not None
    with pytest.raises(Problem) as caught:
        await first.wait_exited()
    assert caught.value.code == "engine_detached"
    assert second.state is ReplicaState.READY
    await second.stop()


async def test_nothing_is_adopted_where_nothing_is(home: EngineHome) -> None:
    assert await Replica.adopt("r1", home.settings) is None


async def test_a_stale_socket_is_removed(home: EngineHome) -> None:
    home.settings.run_dir.mkdir(mode=0o700)
    server = await asyncio.start_unix_server(lambda *_: None, home.socket)
    server.close()
    assert home.socket.exists()
    assert await Replica.adopt("r1", home.settings) is None
    assert not home.socket.exists()


async def test_what_a_killed_keeper_left_is_ended_by_the_next_server(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 30.0, detached_children=1)
    os.kill(known["keeper_pid"], signal.SIGKILL)
    assert await Replica.adopt("r1", home.settings) is None
    assert not home.living() and not home.socket.exists()


async def test_an_engine_whose_socket_was_deleted_is_ended_before_another_is_started(home: EngineHome) -> None:
    await _run_and_kill_server(home, 30.0, children=1, detached_children=1)
    home.socket.unlink()
    assert await Replica.adopt("r1", home.settings) is None
    assert not home.living()


async def test_a_keeper_that_hangs_for_some_seconds_keeps_its_engine(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 60.0)
    os.kill(known["keeper_pid"], signal.SIGSTOP)
    adopting = asyncio.create_task(Replica.adopt("r1", home.settings))
    try:
        await asyncio.sleep(5)
        assert not adopting.done(), "it is waited for"
    finally:
        os.kill(known["keeper_pid"], signal.SIGCONT)
    replica = await adopting
    assert replica is not None and replica.snapshot.engine_pid == known["engine_pid"]
    assert replica.state is ReplicaState.READY
    await replica.stop()


async def test_a_keeper_whose_context_cannot_be_read_is_ended(
    home: EngineHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _run_and_kill_server(home, 30.0)
    monkeypatch.setattr("xinference.process.replica.Endpoint", lambda **_: {"future": 1}["past"])
    assert await Replica.adopt("r1", home.settings) is None
    assert not home.living() and not home.socket.exists()


async def test_an_adopted_engine_whose_keeper_is_killed_ends(home: EngineHome) -> None:
    known = await _run_and_kill_server(home, 30.0, children=1, detached_children=1)
    replica = await Replica.adopt("r1", home.settings)
    assert replica is not None
    os.kill(known["keeper_pid"], signal.SIGKILL)
    assert (await replica.wait_exited()).signal == "SIGKILL"
    assert not home.living()


async def test_a_garbled_request_does_not_hurt_the_keeper(home: EngineHome) -> None:
    replica = home.start()
    await replica.wait_ready()
    reader, writer = await asyncio.open_unix_connection(home.socket)
    writer.write(b'nonsense\n[1]\n{"op": 3}\n{"op": "unknown"}\n')
    await reader.readline()
    writer.close()
    link = await KeeperLink.open(home.socket, 2.0)
    assert link.hello["state"] == "running"
    link.close()
    await until_async("no process is left", lambda: not home.living())


def test_a_loop_that_ends_without_goodbye_leaves_a_ready_engine_to_its_successor(home: EngineHome) -> None:
    settings = dataclasses.replace(home.settings, grace_seconds=30.0)

    async def first() -> None:
        await home.start(settings).wait_ready()

    async def second() -> None:
        replica = await Replica.adopt("r1", settings)
        assert replica is not None and replica.state is ReplicaState.READY
        await replica.stop()

    asyncio.run(first())
    asyncio.run(second())


def test_a_loop_that_ends_during_a_start_leaves_nothing(home: EngineHome) -> None:
    async def begin() -> None:
        replica = home.start(dataclasses.replace(home.settings, grace_seconds=60.0), health_delay=600)
        await until_async("the replica starts", lambda: replica.state is ReplicaState.STARTING)

    asyncio.run(begin())
    asyncio.run(until_async("no process is left", lambda: not home.living()))
