"""Command lines written for older versions, against a real server that one of them starts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.support.home import SMOLLM2, Home
from tests.support.polling import until

SPEC = {
    "model_format": "ggufv2",
    "model_size_in_billions": 1,
    "quantizations": ["Q4_0"],
    "model_id": "org/mine",
    "model_file_name_template": "mine.{quantization}.gguf",
}
MINE = {
    "version": 1,
    "model_name": "mine",
    "model_lang": ["en"],
    "model_ability": ["chat"],
    "model_family": "other",
    "model_specs": [SPEC],
}


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home]) -> Iterator[Home]:
    """A home whose server was started by `xinference` with no command."""
    home = make_home()
    command = [sys.executable, "-m", "xinference.cli.main", "-H", "127.0.0.1", "-p", str(home.port)]
    with (home.path / "test-server.log").open("wb") as log:
        server = subprocess.Popen(command, env=home.environment, stdout=log, stderr=log, start_new_session=True)
    until("the server answers", home.answers)
    yield home
    server.send_signal(signal.SIGINT)
    server.wait(30)


def test_a_launch_says_what_its_flags_come_to_and_answers(home: Home) -> None:
    flags = "--worker-ip 127.0.0.1 --enable-virtual-env --trust-remote-code True --n-gpu none -ev OMP_DYNAMIC false"
    ended = home.cli("launch", "-en", "llama.cpp", *SMOLLM2, "-u", "m", *flags.split(), "--n_ctx", "512")
    assert (ended.returncode, ended.stdout) == (0, "m\n"), ended.stderr
    assert "worker_ip 127.0.0.1 is ignored" in ended.stderr and "enable_virtual_env is ignored" in ended.stderr
    assert psutil.Process(home.engine_pid("m")).environ()["OMP_DYNAMIC"] == "false"


@pytest.mark.parametrize("command", ["chat", "generate"])
@pytest.mark.parametrize("stream", ["True", "False"])
def test_a_model_is_talked_to_with_or_without_a_stream(home: Home, command: str, stream: str) -> None:
    ended = home.cli(command, "--model-uid", "m", "--max_tokens", "8", "--stream", stream, "One, two, three,")
    assert ended.returncode == 0 and ended.stdout.strip(), ended.stderr


@pytest.mark.parametrize(
    ("flags", "named"), [("--n-worker 2", "n_worker"), ("-vp some==1", "virtual_env_packages"), ("-t image", "image")]
)
def test_what_cannot_be_had_is_refused_before_anything_starts(home: Home, flags: str, named: str) -> None:
    ended = home.cli("launch", *SMOLLM2, "-u", "other", *flags.split())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert named in ended.stderr and "Hint: " in ended.stderr


def test_a_model_of_ones_own_is_registered_listed_and_unregistered(home: Home) -> None:
    (home.path / "mine.json").write_text(json.dumps(MINE))
    assert home.cli("register", "-t", "LLM", "-f", str(home.path / "mine.json"), "-p").returncode == 0
    listed = json.loads(home.cli("registrations", "-t", "LLM", "--json").stdout)
    assert [family["is_builtin"] for family in listed if family["model_name"] == "mine"] == [False]
    assert home.cli("unregister", "-t", "LLM", "-n", "mine").returncode == 0
    assert "mine" not in home.cli("registrations").stdout.split()


def test_engines_are_listed_under_the_name_that_launch_does_not_have(home: Home) -> None:
    line = "engine --model-name llama-2-chat -s 7 -f ggufv2 -q Q4_K_M -en llama.cpp"
    listed = home.cli(*line.split()).stdout.splitlines()[-1]
    assert listed.split() == ["7B", "ggufv2", "llama.cpp", "Q4_K_M"]
    assert "llama-2-chat" in home.cli("vllm-models").stdout.split()


def test_whoever_has_another_home_logs_in_and_stops_the_cluster_by_its_url(
    home: Home, make_home: Callable[..., Home]
) -> None:
    key = home.cli("keys", "create", "--name", "me", "--scope", "manage").stdout.strip()
    other = make_home()
    assert "xinference login" in other.cli("list", "-e", home.url).stderr
    assert other.cli("login", "-e", home.url, "--username", "me", "--password", key).returncode == 0
    assert "READY" in other.cli("list", "-e", home.url).stdout
    ended = other.cli("stop-cluster", "-e", home.url, stdin="y\n")
    assert ended.returncode == 0 and f"The server at {home.url} runs m." in ended.stderr, ended.stderr
    until("nothing is left", home.nothing_left, 15)
