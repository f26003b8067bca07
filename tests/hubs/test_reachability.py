from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.hub.loopback import LoopbackHub
from tests.hubs.loopback_fetch import version_of
from xinference.catalog.models import Source
from xinference.config import Settings
from xinference.hubs.reachability import reachable_for
from xinference.hubs.registry import all_hubs

HUGGINGFACE = Source(hub="huggingface", model_id="tiny/llama", file="tiny.bin")
MODELSCOPE = Source(hub="modelscope", model_id="tiny/llama", file="tiny.bin")
CLOSED = "http://127.0.0.1:9"


def ask(home: Path, *sources: Source, offline: bool = False) -> Mapping[str, bool]:
    settings = Settings(home=home, offline=offline)
    return reachable_for(version_of("ggmlv3", *sources), all_hubs(settings), settings)


def test_a_hub_that_answers_is_told_from_one_that_does_not(
    server: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert ask(tmp_path, HUGGINGFACE, MODELSCOPE) == {"huggingface": False, "modelscope": True}


def test_an_answer_is_kept_for_a_while(server: LoopbackHub, tmp_path: Path) -> None:
    for _ in range(3):
        ask(tmp_path, HUGGINGFACE, MODELSCOPE)
    assert len(server.counters.requests) <= 2


def test_nothing_is_asked_where_the_answer_decides_nothing(
    server: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    assert ask(tmp_path, HUGGINGFACE) == {}
    assert ask(tmp_path, HUGGINGFACE, MODELSCOPE, offline=True) == {}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert ask(tmp_path, HUGGINGFACE) == {}
