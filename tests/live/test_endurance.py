"""A full disk, a locked store, a lost folder: models answer on, and nothing runs that no one knows."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.polling import until
from tests.support.ports import free_port
from tests.support.scripted_home import ScriptedHome
from tests.support.small_disk import small_disk
from xinference.errors import EXIT_IN_USE

TINY = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
MakeHome = Callable[..., ScriptedHome]


@pytest.fixture
def weights() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="xi-"))
    yield write_gguf(TINY, "Q8_0", folder / "tiny.gguf")
    shutil.rmtree(folder)


@pytest.fixture
def make_home(weights: Path) -> Iterator[MakeHome]:
    """A home whose path is short enough for the sockets; nothing of it is left after the test."""
    homes: list[ScriptedHome] = []

    def make(path: Path | None = None, **env: str) -> ScriptedHome:
        path = path or weights.parent / "home"
        defaults = {"XINFERENCE_STOP_SECONDS": "2", "XINFERENCE_RESTART_BACKOFF_SECONDS": "0.1"}
        homes.append(ScriptedHome(path, free_port(), defaults | env, weights))
        return homes[-1]

    yield make
    for home in homes:
        home.clean_up()


def _answers(home: ScriptedHome, uid: str) -> bool:
    return bool(home.chat(model=uid).status_code == 200)


def test_a_server_starts_and_serves_on_a_full_disk_and_heals_when_there_is_room(make_home: MakeHome) -> None:
    with small_disk() as disk:
        home = make_home(disk.path / "home")
        home.start()
        try:
            assert home.post_launch("m").status_code == 200
            engine = home.engine_pid("m")
            home.kill()
            disk.fill()
            home.start()
            assert home.chat(model="m").status_code == 200 and home.engine_pid("m") == engine
            refused = home.post_launch("other", envs={"OMP_NUM_THREADS": "1"})
            assert refused.status_code == 507 and refused.json()["problem"]["code"] == "disk_full"
            assert home.status("other") == "GONE"
            process = psutil.Process(engine)
            process.kill()
            # A chat that a dying engine still accepts would be refused from then on as its cause.
            process.wait(60)
            disk.free()
            until("the model is back", lambda: home.chat(model="m").status_code == 200)
            assert home.engine_pid("m") != engine
            until("the server is announced", (home.path / "server.json").exists, 30)
            assert home.post_launch("other").status_code == 200
        finally:
            home.clean_up()
            until("nothing uses the disk", home.nothing_left)


def test_a_locked_store_stops_no_stream_and_no_launch(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    assert home.post_launch("m").status_code == 200
    with ThreadPoolExecutor() as pool:
        launching = pool.submit(home.post_launch, "late", script={"listen_delay": 1})
        until("the launch is on its way", lambda: home.status("late") in ("LOADING", "CREATING"))
        with home.locked_store():
            os.kill(home.engine_pid("m"), signal.SIGKILL)
            until("the death is noticed", lambda: home.status("m") == "RECOVERING")
            refused = home.post_launch("refused")
            assert refused.status_code == 503 and refused.json()["problem"]["code"] == "store_busy"
        assert launching.result().status_code == 200
    until("the model is back", lambda: home.chat(model="m").status_code == 200)
    assert home.post_launch("refused").status_code == 200


def test_a_folder_of_sockets_that_is_deleted_lets_no_second_server_and_no_second_engine_in(
    make_home: MakeHome,
) -> None:
    home = make_home()
    home.start()
    for uid in ("a", "b"):
        assert home.post_launch(uid).status_code == 200
    first = {process.pid for process in home.engines()}
    shutil.rmtree(home.path / "run")
    second = ScriptedHome(home.path, free_port(), home.env, home.weights).start(wait=False)
    assert second.wait(60) == EXIT_IN_USE
    assert {process.pid for process in home.engines()} == first
    home.kill()
    home.start()
    for uid in ("a", "b"):
        until(f"{uid} answers", functools.partial(_answers, home, uid))
    assert len(home.engines()) == 2


def test_an_engine_whose_weights_are_gone_is_adopted_and_ended_by_terminate(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    assert home.post_launch("m").status_code == 200
    engine = home.engine_pid("m")
    home.kill()
    away = home.weights.with_name("away.gguf")
    home.weights.rename(away)
    home.start()
    assert home.chat(model="m").status_code == 200 and home.engine_pid("m") == engine
    assert home.delete("/v1/models/m").status_code == 200
    assert home.engines() == []
    home.kill()
    home.start()
    assert home.status("m") == "GONE"


def test_a_termination_that_a_kill_interrupts_is_finished_without_the_weights(make_home: MakeHome) -> None:
    home = make_home(XINFERENCE_STOP_SECONDS="5")
    home.start()
    assert home.post_launch("m", script={"ignore_sigterm": True}).status_code == 200
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(home.delete, "/v1/models/m")
        until("it ends", lambda: home.status("m") == "TERMINATING")
        home.kill()
        assert isinstance(ending.exception(), httpx2.TransportError)
    home.weights.rename(home.weights.with_name("away.gguf"))
    home.start()
    assert home.status("m") == "GONE" and home.engines() == []


def test_a_replica_that_is_added_while_another_is_removed_is_a_replica_of_its_own(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    script = {"ignore_sigterm": True}
    assert home.post_launch("p", replica=2, script=script).status_code == 200
    until("both answer", lambda: [r["status"] for r in home.instance("p")["replicas"]] == ["READY"] * 2)
    with ThreadPoolExecutor() as pool:
        removing = pool.submit(home.delete, "/v1/models/p/replicas/0")
        until("it is removed", lambda: "TERMINATING" in [r["status"] for r in home.instance("p")["replicas"]])
        added = httpx2.post(f"{home.url}/v1/models/p/replicas", json={}, timeout=60)
        assert added.status_code == 200, added.text
        assert removing.result().status_code == 200
    replicas = home.instance("p")["replicas"]
    assert [replica["status"] for replica in replicas] == ["READY"] * 2
    assert {replica["engine_pid"] for replica in replicas} == {process.pid for process in home.engines()}
    assert home.delete("/v1/models/p").status_code == 200
    assert home.engines() == []


def test_a_launch_of_a_uid_that_ends_just_now_runs_when_it_is_answered(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    assert home.post_launch("m", script={"ignore_sigterm": True}).status_code == 200
    first = home.engine_pid("m")
    with ThreadPoolExecutor() as pool:
        ending = pool.submit(home.delete, "/v1/models/m")
        until("it ends", lambda: home.status("m") == "TERMINATING")
        assert home.post_launch("m", script={"ignore_sigterm": True}).status_code == 200
        assert ending.result().status_code == 200
    assert home.chat(model="m").status_code == 200
    (engine,) = home.engines()
    assert engine.pid != first


def test_equal_launches_at_one_moment_are_one_launch(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: home.post_launch("m"), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len(home.engines()) == 1


def test_a_keeper_that_hangs_for_some_seconds_at_a_restart_keeps_its_engine(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    assert home.post_launch("m").status_code == 200
    engine, keeper = home.engine_pid("m"), home.keeper_pid("m")
    os.kill(keeper, signal.SIGSTOP)
    home.kill()
    timer = threading.Timer(12, os.kill, (keeper, signal.SIGCONT))
    timer.start()
    home.start()
    timer.join()
    assert home.chat(model="m").status_code == 200 and home.engine_pid("m") == engine


def test_followed_logs_end_with_their_deployment(make_home: MakeHome) -> None:
    home = make_home()
    home.start()
    assert home.post_launch("m", script={"print_lines": 3}).status_code == 200
    with httpx2.stream("GET", f"{home.url}/v1/models/m/logs", params={"follow": "true"}, timeout=60) as logs:
        lines = logs.iter_text()
        assert "log line" in next(lines)
        assert home.delete("/v1/models/m").status_code == 200
        for _ in lines:
            pass
