from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub.loopback import LoopbackHub, serve
from tests.hubs.loopback_fetch import Fetching
from xinference.hubs import reachability
from xinference.hubs.transfer import parallel


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Both hubs on loopback, and an environment in which nothing else is known of any hub."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "MODELSCOPE_", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(reachability, "_answers", {})
    # What is tried again is tried soon.
    monkeypatch.setattr(parallel, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("modelscope_hub._download_control._DownloadControl.sleep", lambda control, _: control.check())
    with serve(LoopbackHub()) as hub:
        monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        # The library reads this one when it is imported, and the token of whoever runs the tests is in there.
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
        monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope home"))
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(params=["huggingface", "modelscope"])
def fetching(request: pytest.FixtureRequest, server: LoopbackHub, tmp_path: Path) -> Fetching:
    """Each of both hubs in turn."""
    return Fetching(request.param, server, tmp_path / "home")


@pytest.fixture
def huggingface(server: LoopbackHub, tmp_path: Path) -> Fetching:
    return Fetching("huggingface", server, tmp_path / "home")


@pytest.fixture
def modelscope(server: LoopbackHub, tmp_path: Path) -> Fetching:
    return Fetching("modelscope", server, tmp_path / "home")
