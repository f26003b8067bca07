"""Weights fetched, listed, used and removed by the commands as typed, from a hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.hub.llama2 import llama2_hub
from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.support.home import Home

ASSETS = Path(__file__).parents[1] / "assets" / "tiny-llama2-chat-hf"
LINE = ("-n", "llama-2-chat", "-s", "7", "-f", "ggmlv3", "-q", "q4_0")
VERSION = "llama-2-chat--7B--ggmlv3--q4_0"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with serve(llama2_hub(ASSETS, tmp_path_factory.mktemp("made"))) as hub:
        yield hub


@pytest.fixture(scope="module")
def home(make_home: Callable[..., Home], hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Home:
    own = tmp_path_factory.mktemp("hubs")
    home = make_home(
        HF_ENDPOINT=hub.url,
        HF_HOME=str(own / "huggingface"),
        MODELSCOPE_ENDPOINT=hub.url,
        MODELSCOPE_CACHE=str(own / "modelscope"),
    )
    (home.path / "cache").unlink()  # the shared one has what other modules converted
    return home


def entries(home: Home) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(home.cli("cached", "-n", "llama-2-chat", "--json").stdout)
    return found


def test_a_download_starts_a_server_and_prints_the_path(home: Home, hub: LoopbackHub) -> None:
    ended = home.cli("download", *LINE)
    assert ended.returncode == 0, ended.stderr
    assert "Starting a server" in ended.stderr
    assert Path(ended.stdout.strip()).is_file()
    asked = len(hub.counters.of("q4_0.bin"))
    assert home.cli("download", *LINE).stdout == ended.stdout
    assert len(hub.counters.of("q4_0.bin")) == asked
    (entry,) = entries(home)
    assert (entry["path"], entry["complete"]) == (ended.stdout.strip(), True)
    assert "llama-2-chat" in home.cli("cached").stdout


def test_a_launch_uses_it_and_keeps_it_from_removal(home: Home, hub: LoopbackHub) -> None:
    before, asked = entries(home)[0]["size_bytes"], len(hub.counters.of("q4_0.bin"))
    launched = home.cli("launch", "-en", "llama.cpp", "-u", "tiny", *LINE)
    assert launched.returncode == 0, launched.stderr
    assert len(hub.counters.of("q4_0.bin")) == asked
    assert int(str(entries(home)[0]["size_bytes"])) > int(str(before))  # the conversion belongs to it
    refused = home.cli("remove-cache", "-n", VERSION, "--check")
    assert refused.returncode == 1 and "the model tiny" in refused.stderr


def test_a_removal_takes_the_file_and_its_conversion(home: Home) -> None:
    assert home.cli("terminate", "tiny").returncode == 0
    path = Path(str(entries(home)[0]["path"]))
    removed = home.cli("remove-cache", "-n", VERSION, stdin="y\n")
    assert removed.returncode == 0, removed.stderr
    assert str(path) in removed.stderr and "converted" in removed.stderr and "freed" in removed.stderr
    assert entries(home) == [] and not path.exists()
    assert not list((home.path / "cache" / "converted").glob(f"{VERSION}-*"))
    assert home.cli("remove-cache", "-n", VERSION, "--check").returncode == 1


def test_the_server_is_stopped(home: Home) -> None:
    assert home.cli("stop").returncode == 0
