"""A replica's life, with real keepers and fake engines."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from typing import Any

import psutil
import pytest

from tests.fakes.running import start_fake_engine
from tests.process.conftest import EngineHome
from tests.support.polling import until_async
from xinference.errors import Problem
from xinference.process import replica as replica_module
from xinference.process.command import EngineCommand, Fault, ProgressProbe
from xinference.process.engine_watch import Guard
from xinference.process.hang import EngineTraffic
from xinference.process.link import KeeperLink, KeeperProcess
from xinference.process.replica import Replica
from xinference.process.snapshot import ReplicaState
from xinference.units import MIB

pytestmark = pytest.mark.process


async def test_a_started_engine_becomes_ready_and_a_stop_leaves_nothing(home: EngineHome) -> None:
    replica = home.start()
    await replica.wait_ready()
    seen = replica.snapshot
    assert seen.state is ReplicaState.READY
    assert seen.base_url == f"http://127.0.0.1:{seen.port}"
    assert seen.engine_pid and seen.keeper_pid and psutil.Process(seen.engine_pid).ppid() == seen.keeper_pid

    ended = await replica.stop()

    assert ended is not None and ended.signal == "SIGTERM" and ended.requested
    assert replica.snapshot.exit == ended and replica.snapshot.state is ReplicaState.EXITED
    assert not home.living() and not psutil.pid_exists(seen.keeper_pid)
    assert not home.socket.exists()


async def test_a_stop_ends_children_that_began_their_own_session(home: EngineHome) -> None:
    replica = home.start(children=1, detached_children=2)
    await replica.wait_ready()
    assert len(home.living()) == 5
    await replica.stop()
    assert not home.living()


async def test_a_stop_ends_an_engine_that_ignores_sigterm(home: EngineHome) -> None:
    settings = dataclasses.replace(home.settings, stop_seconds=0.3)
    replica = home.start(settings, ignore_sigterm=True, detached_children=1)
    await replica.wait_ready()
    ended = await replica.stop()
    assert ended is not None and ended.signal == "SIGKILL"
    assert not home.living()


async def test_stopping_twice_gives_the_same_exit(home: EngineHome) -> None:
    replica = home.start()
    await replica.wait_ready()
    first, second = await asyncio.gather(replica.stop(), replica.stop())
    assert first == second == await replica.stop()


@pytest.mark.parametrize(("how", "code", "name"), [({"code": 3}, 3, None), ({"signal": "SIGKILL"}, None, "SIGKILL")])
async def test_a_death_is_reported_with_its_kind_and_last_words(
    home: EngineHome, how: dict[str, object], code: int | None, name: str | None
) -> None:
    replica = home.start(print_lines=100, children=1, detached_children=1, die={"on_request": True, **how})
    await replica.wait_ready()
    with pytest.raises(OSError):
        await asyncio.to_thread(_post, replica.snapshot.base_url)

    ended = await replica.wait_exited()

    assert (ended.code, ended.signal, ended.requested) == (code, name, False)
    assert len(ended.log_tail) == 40 and "log line 99" in ended.log_tail
    assert ended.ran_seconds > 0
    assert not home.living()


async def test_a_death_during_the_start_is_a_problem_with_the_last_words(home: EngineHome) -> None:
    replica = home.start(print_lines=2, line="no such tensor", die={"at_start": True, "code": 7})
    with pytest.raises(Problem) as caught:
        await replica.wait_ready()
    problem = caught.value
    assert (problem.code, problem.status, problem.stage) == ("engine_died", 502, "start")
    assert "status 7" in problem.cause
    assert problem.log_tail == ("no such tensor", "no such tensor")
    assert (await replica.wait_exited()).code == 7
    assert not home.living()


async def test_a_program_that_does_not_exist_is_named(home: EngineHome) -> None:
    command = EngineCommand(argv=("/nowhere/engine",), model_name="fake")
    replica = Replica.start("r1", command, home.settings, log_path=home.log_path)
    with pytest.raises(Problem) as caught:
        await replica.wait_ready()
    assert caught.value.code == "engine_died"
    assert "/nowhere/engine" in caught.value.log_tail[-1]


async def test_an_engine_that_stays_unhealthy_is_ended_at_the_deadline(home: EngineHome) -> None:
    settings = dataclasses.replace(home.settings, start_seconds=1.5)
    replica = home.start(settings, health_delay=600)
    with pytest.raises(Problem) as caught:
        await replica.wait_ready()
    assert (caught.value.code, caught.value.stage) == ("engine_start_timeout", "health")
    assert any("listening on" in line for line in caught.value.log_tail)
    assert replica.state is ReplicaState.EXITED
    assert not home.living()


@pytest.mark.parametrize("stranger", [{"api_key": "another-key"}, {"model_name": "another-model"}])
async def test_a_stranger_on_the_port_is_not_taken_for_the_engine(
    home: EngineHome, stranger: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"api_key": "engine-key"} | stranger
    async with start_fake_engine(**options) as other:
        port = int(other.base_url.rpartition(":")[2])
        monkeypatch.setattr("xinference.process.link.ports.take", lambda: port)
        replica = home.start(dataclasses.replace(home.settings, start_seconds=2), listen_delay=600)
        with pytest.raises(Problem) as caught:
            await replica.wait_ready()
        assert caught.value.code == "engine_start_timeout"


async def test_a_cancelled_start_leaves_nothing(home: EngineHome) -> None:
    replica = home.start(health_delay=600, detached_children=1)
    waiting = asyncio.create_task(replica.wait_ready())
    await until_async("three processes run", lambda: len(home.living()) == 3)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert replica.state is ReplicaState.EXITED
    assert not home.living() and not home.socket.exists()


async def test_a_start_cancelled_at_once_leaves_nothing(home: EngineHome) -> None:
    replica = home.start()
    waiting = asyncio.create_task(replica.wait_ready())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not home.living() and not home.socket.exists()


async def test_a_stop_during_the_start_tells_those_who_wait(home: EngineHome) -> None:
    replica = home.start(health_delay=600)
    waiting = asyncio.create_task(replica.wait_ready())
    await until_async("the replica starts", lambda: replica.state is ReplicaState.STARTING)
    await replica.stop()
    with pytest.raises(Problem) as caught:
        await waiting
    assert caught.value.code == "engine_stopped"


async def test_a_killed_keeper_takes_its_engine_along(home: EngineHome) -> None:
    replica = home.start(children=1, detached_children=1, print_lines=3)
    await replica.wait_ready()
    keeper = replica.snapshot.keeper_pid
    assert keeper
    os.kill(keeper, signal.SIGKILL)
    ended = await replica.wait_exited()
    assert ended.signal == "SIGKILL" and "keeper" in ended.log_tail[-1] and "log line 2" in ended.log_tail
    assert not home.living() and not home.socket.exists()


async def test_a_hanging_keeper_is_killed_with_all_it_keeps(home: EngineHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "_OVERDUE_SECONDS", 0.1)
    replica = home.start(dataclasses.replace(home.settings, stop_seconds=0.1), detached_children=1)
    await replica.wait_ready()
    keeper = replica.snapshot.keeper_pid
    assert keeper
    os.kill(keeper, signal.SIGSTOP)
    ended = await replica.stop()
    assert ended is not None and ended.requested
    assert not home.living() and not home.socket.exists()


async def test_sigterm_to_the_keeper_ends_the_engine_in_order(home: EngineHome) -> None:
    replica = home.start(detached_children=1)
    await replica.wait_ready()
    keeper = replica.snapshot.keeper_pid
    assert keeper
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        os.kill(keeper, ignored)
    os.kill(keeper, signal.SIGTERM)
    assert (await replica.wait_exited()).signal == "SIGTERM"
    assert not home.living()


async def test_secrets_are_in_no_argument_and_no_file(home: EngineHome) -> None:
    replica = home.start()
    await replica.wait_ready()
    assert not any("engine-key" in word for process in home.living() for word in process.cmdline())
    files = [path for path in home.settings.home.rglob("*") if path.is_file()]
    assert not any(b"engine-key" in path.read_bytes() for path in files)
    assert "engine-key" not in repr(replica.snapshot)
    await replica.stop()


async def test_a_folder_that_others_may_write_to_is_refused(home: EngineHome) -> None:
    home.settings.run_dir.mkdir()
    home.settings.run_dir.chmod(0o777)
    with pytest.raises(Problem) as caught:
        home.start()
    assert caught.value.code == "unsafe_run_dir"


async def test_a_full_log_is_bounded(home: EngineHome) -> None:
    settings = dataclasses.replace(home.settings, log_bytes=64 * 1024)
    replica = home.start(settings, print_lines=20_000)
    await replica.wait_ready()
    await replica.stop()
    rotated = home.log_path.with_name("engine.log.1")
    assert 0 < home.log_path.stat().st_size + rotated.stat().st_size <= 64 * 1024


def _post(base_url: str) -> None:
    import urllib.request

    headers = {"Authorization": "Bearer engine-key"}
    urllib.request.urlopen(urllib.request.Request(f"{base_url}/v1/completions", b"{}", headers), timeout=30)


async def test_a_defect_of_ours_leaves_no_engine_that_no_task_owns(
    home: EngineHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = KeeperProcess.connect

    async def broken(keeper: KeeperProcess, *arguments: Any) -> KeeperLink:
        await connect(keeper, *arguments)
        raise LookupError("a defect")

    monkeypatch.setattr(KeeperProcess, "connect", broken)
    replica = home.start(children=1, detached_children=1)
    with pytest.raises(Problem) as failed:
        await replica.wait_ready()
    assert failed.value.code == "internal_error"
    await replica.wait_exited()
    assert replica.state is ReplicaState.EXITED and not home.living()


# -- the limits of an engine -------------------------------------------------------------------------------------


def _watched(home: EngineHome, ceiling: int = 0, **script: object) -> Replica:
    settings = dataclasses.replace(home.settings, probe_seconds=0.1, hung_seconds=0.6, hung_computing_seconds=30.0)

    async def last_byte(base_url: str) -> float:
        return 0.0

    guard = Guard(EngineTraffic(lambda replica_id: 1, last_byte), ProgressProbe("/progress"), 0, ceiling)
    return Replica.start("r1", home.command(**script), settings, log_path=home.log_path, guard=guard)


@pytest.mark.parametrize("how", ["sleep", "spin"])
async def test_an_engine_whose_main_loop_hangs_is_killed(home: EngineHome, how: str) -> None:
    replica = _watched(home, hang={"how": how}, ignore_sigterm=True, detached_children=1)
    await replica.wait_ready()
    asking = asyncio.create_task(asyncio.to_thread(_post, replica.snapshot.base_url))
    ended = await replica.wait_exited()
    assert (ended.signal, ended.fault, ended.requested) == ("SIGKILL", Fault.HUNG, False)
    assert "answered no probe" in ended.reason
    assert not home.living()
    with pytest.raises(OSError):
        await asking


async def test_an_engine_that_is_stopped_by_a_signal_is_killed_too(home: EngineHome) -> None:
    replica = _watched(home)
    await replica.wait_ready()
    assert replica.snapshot.engine_pid
    os.kill(replica.snapshot.engine_pid, signal.SIGSTOP)
    assert (await replica.wait_exited()).fault is Fault.HUNG
    assert not home.living()


async def test_an_engine_that_answers_its_probes_lives_on(home: EngineHome) -> None:
    replica = _watched(home)
    await replica.wait_ready()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(replica.wait_exited(), 2.0)
    assert replica.state is ReplicaState.READY
    await replica.stop()


async def test_an_engine_above_its_ceiling_is_killed_before_it_takes_much_more(home: EngineHome) -> None:
    replica = _watched(home, ceiling=150 * MIB, eat={"mib_per_second": 100}, ignore_sigterm=True)
    await replica.wait_ready()
    asking = asyncio.create_task(asyncio.to_thread(_post, replica.snapshot.base_url))
    ended = await replica.wait_exited()
    assert (ended.signal, ended.fault, ended.requested) == ("SIGKILL", Fault.MEMORY_CEILING, False)
    used = int(ended.reason.split()[1].replace(",", ""))
    assert 150 < used < 450 and "ceiling of 150 MiB" in ended.reason
    assert not home.living()
    with pytest.raises(OSError):
        await asking


async def test_an_engine_that_was_adopted_is_watched_too(home: EngineHome) -> None:
    first = home.start(eat={"mib_per_second": 100})
    await first.wait_ready()
    await first.detach()
    adopted = await Replica.adopt("r1", home.settings, guard=lambda context: Guard(ceiling=150 * MIB))
    assert adopted is not None and adopted.state is ReplicaState.READY
    asking = asyncio.create_task(asyncio.to_thread(_post, adopted.snapshot.base_url))
    assert (await adopted.wait_exited()).fault is Fault.MEMORY_CEILING
    with pytest.raises(OSError):
        await asking


async def test_the_ceiling_holds_while_no_server_runs(home: EngineHome) -> None:
    settings = dataclasses.replace(home.settings, grace_seconds=60.0)
    guard = Guard(ceiling=150 * MIB)
    command = home.command(eat={"mib_per_second": 100})
    replica = Replica.start("r1", command, settings, log_path=home.log_path, guard=guard)
    await replica.wait_ready()
    url = replica.snapshot.base_url
    await replica.detach()
    with pytest.raises(OSError):
        await asyncio.to_thread(_post, url)
    engine = replica.snapshot.engine_pid
    assert engine
    await until_async("the engine is ended", lambda: not psutil.pid_exists(engine))
