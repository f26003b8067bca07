from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.polling import until
from tests.support.ports import free_port
from xinference.client import local_server
from xinference.client.local_server import end_left_engines, ensure_server
from xinference.config import Settings
from xinference.errors import InUse, Problem
from xinference.process.home import is_free, own_home

pytestmark = pytest.mark.process

#: Answers /health like our server, and writes its process id for the test to end it.
SERVER = """
import http.server, os, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')
try:
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
except OSError:
    sys.exit(98)
pathlib.Path("pid").write_text(str(os.getpid()))
print("serving", flush=True)
server.serve_forever()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", port=free_port())


def end(settings: Settings) -> None:
    os.kill(int((settings.home / "pid").read_text()), signal.SIGKILL)


def server(settings: Settings) -> list[str]:
    return [sys.executable, "-c", SERVER, str(settings.port)]


def test_a_missing_server_is_started_once_in_a_session_of_its_own(settings: Settings) -> None:
    said: list[str] = []
    assert ensure_server(settings, lambda: said.append("start"), command=server(settings))
    try:
        assert not ensure_server(settings, lambda: said.append("again"), command=["false"])
        assert said == ["start"]
        pid = int((settings.home / "pid").read_text())
        assert os.getsid(pid) == pid
        assert "serving" in (settings.log_dir / "server.log").read_text()
        assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700
        assert stat.S_IMODE(settings.log_dir.stat().st_mode) == 0o700
    finally:
        end(settings)


def test_a_server_that_dies_leaves_its_last_words(settings: Settings) -> None:
    script = "print(*range(100), sep='\\n'); raise SystemExit(3)"
    settings.log_dir.mkdir(parents=True)
    (settings.log_dir / "server.log").write_text("an older run\n")
    with pytest.raises(Problem) as raised:
        ensure_server(settings, lambda: None, command=[sys.executable, "-c", script])
    assert "exit status 3" in raised.value.cause
    assert raised.value.log_tail == tuple(str(n) for n in range(60, 100))


def test_the_loser_of_two_starts_uses_the_winners_server(settings: Settings, tmp_path: Path) -> None:
    # The command starts the winner, slowly, and then ends as a loser does. It is tried again before the winner answers.
    loser = f"""
import pathlib, subprocess, sys
if not pathlib.Path("tried").exists():
    pathlib.Path("tried").touch()
    subprocess.Popen({server(settings)!r}, start_new_session=True)
sys.exit(98)
"""
    assert ensure_server(settings, lambda: None, command=[sys.executable, "-c", loser])
    end(settings)


def test_a_taken_home_without_an_answer_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "OTHER_START_SECONDS", 0.1)
    with pytest.raises(Problem, match="in use"):
        ensure_server(settings, lambda: None, command=[sys.executable, "-c", "raise SystemExit(98)"])


def test_no_server_is_started_in_the_home_of_a_worker(settings: Settings) -> None:
    with own_home(settings):
        (settings.home / "cluster").mkdir()
        (settings.home / "cluster" / "membership.json").write_text('{"host": "10.0.0.1", "port": 9999}')
        with pytest.raises(Problem, match="A worker of a cluster runs in") as caught:
            ensure_server(settings, lambda: pytest.fail("a server is started"))
    assert "http://10.0.0.1:9997" in str(caught.value.hint)


def test_the_engines_of_a_home_that_a_server_or_worker_uses_are_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "stop_keepers", lambda run_dir, seconds: int(run_dir == settings.run_dir))
    with own_home(settings):
        assert end_left_engines(settings) == 0
    assert end_left_engines(settings) == 1


def test_a_server_is_started_once_more_when_the_lock_of_the_stopping_one_is_gone(settings: Settings) -> None:
    # The command fails as a server does while another one holds the home's lock, and serves once that has left.
    script = f"""
import sys
from pathlib import Path
from xinference.config import Settings
from xinference.process.home import is_free
free = is_free(Settings(home=Path({str(settings.home)!r})))
Path("tried").open("a").write("x")
if not free:
    sys.exit(98)
sys.argv = ["server", {str(settings.port)!r}]
exec({SERVER!r})
"""
    settings.home.mkdir()

    def tried() -> bool:
        return (settings.home / "tried").exists()

    with ThreadPoolExecutor(1) as threads:
        with own_home(settings):
            starting = threads.submit(ensure_server, settings, lambda: None, command=[sys.executable, "-c", script])
            until("the first try has failed", tried)
            assert not starting.done()
        assert starting.result()
    try:
        assert (settings.home / "tried").read_text() == "xx"
    finally:
        end(settings)


def test_a_home_is_free_once_its_owner_has_left(settings: Settings) -> None:
    settings.home.mkdir()
    assert is_free(settings)
    with own_home(settings):
        assert not is_free(settings)
        with pytest.raises(InUse), own_home(settings):
            pass
    assert is_free(settings)


def test_a_server_that_never_answers_is_ended(settings: Settings) -> None:
    script = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    with pytest.raises(Problem, match=r"within 0\.5 s"):
        ensure_server(settings, lambda: None, command=[sys.executable, "-c", script], seconds=0.5)


def test_a_long_log_is_put_aside(settings: Settings) -> None:
    settings.log_dir.mkdir(parents=True)
    (settings.log_dir / "server.log").write_bytes(b"x" * (settings.log_bytes + 1))
    assert ensure_server(settings, lambda: None, command=server(settings))
    end(settings)
    assert (settings.log_dir / "server.log").read_text().startswith("serving")
    assert (settings.log_dir / "server.log.1").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("free", "cause", "hint"),
    [(1 << 30, "exit status 1.", "`xinference serve` shows the reason"), (0, "is full.", "Free disk space")],
)
def test_a_server_that_dies_without_a_word_is_explained(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, free: int, cause: str, hint: str
) -> None:
    monkeypatch.setattr("xinference.files.disk_space.free_bytes", lambda folder: free)
    with pytest.raises(Problem) as raised:
        ensure_server(settings, lambda: None, command=["false"])
    assert raised.value.cause.endswith(cause) and hint in (raised.value.hint or "")


def test_a_program_at_the_port_that_never_answers_is_named_with_the_way_out(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "FIRST_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", settings.port)), pytest.raises(Problem) as refused:
        ensure_server(settings, lambda: None)
    assert refused.value.code == "server_timeout" and "did not answer within 0.2 s" in refused.value.cause
    assert "XINFERENCE_PORT" in (refused.value.hint or "")


def test_a_home_whose_server_has_another_address_gets_no_second_one(settings: Settings, tmp_path: Path) -> None:
    other = free_port()
    url = f"http://127.0.0.1:{other}"
    (tmp_path / "other").mkdir()
    with own_home(settings):
        settings.server_file.write_text(json.dumps({"endpoint": url, "pid": 5}))
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(other)], cwd=tmp_path / "other")
        try:
            until("the other server answers", lambda: local_server.server_answers(Settings(port=other)))
            with pytest.raises(Problem, match=f"Another server uses {settings.home}") as refused:
                ensure_server(settings, lambda: pytest.fail("a server is started"))
        finally:
            process.kill()
            process.wait()
    assert refused.value.code == "home_taken" and url in refused.value.cause
    assert f"--endpoint {url}" in (refused.value.hint or "")


def test_the_way_past_another_program_at_the_port_is_another_port(settings: Settings) -> None:
    script = SERVER.replace('{"status": "ok"}', "hello")
    process = subprocess.Popen([sys.executable, "-c", script, str(settings.port)], cwd=settings.home.parent)
    try:
        until("the program listens", lambda: (settings.home.parent / "pid").exists())
        with pytest.raises(Problem) as refused:
            ensure_server(settings, lambda: pytest.fail("a server is started"))
    finally:
        process.kill()
        process.wait()
    assert refused.value.code == "not_our_server"
    assert "XINFERENCE_PORT" in (refused.value.hint or "") and "base_url" not in (refused.value.hint or "")
