"""What fits here without a server: the same list as the planner's, with the models of the home or without."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from xinference.config import Settings
from xinference.hardware.devices import Host
from xinference.launch.request import LaunchRequest
from xinference.local_commands import fits as local_fits
from xinference.local_commands.plan import HomePlanner
from xinference.local_commands.stored_requests import stored_requests
from xinference.store.database import Store
from xinference.units import GIB

HOST = Host(4, 16 * GIB, 12 * GIB, cpu_flags=frozenset({"avx2"}))
MODEL = LaunchRequest(
    model_name="qwen2.5-instruct", model_size_in_billions="0_5", model_format="ggufv2", quantization="q4_k_m",
    model_engine="llama.cpp",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("HF_HOME", "MODELSCOPE_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("xinference.nodes.local.read_host", lambda: HOST)
    monkeypatch.setattr(local_fits, "read_host", lambda: HOST)
    (tmp_path / "home").mkdir()
    return Settings(home=tmp_path / "home", offline=True, model_memory=8 * GIB)


def test_without_models_of_the_home_the_list_is_the_planners(settings: Settings) -> None:
    by_planner = asyncio.run(HomePlanner(settings).fits("LLM", "qwen2.5-instruct"))
    assert local_fits.fits(settings, "LLM", "qwen2.5-instruct") == [fit.to_dict() for fit in by_planner]
    assert len(by_planner) > 20


def test_the_memory_of_models_that_a_server_would_load_is_subtracted(settings: Settings) -> None:
    before = local_fits.fits(settings, "LLM", "qwen2.5-instruct")
    with closing(Store(settings.home / "xinference.db")) as store:
        store.add_deployment("m", msgspec.json.encode(MODEL).decode())
    assert [uid for uid, _ in stored_requests(settings)] == ["m"]
    after = local_fits.fits(settings, "LLM", "qwen2.5-instruct")
    count = [sum(fit["fits"] == "now" for fit in found) for found in (before, after)]
    assert 0 < count[1] < count[0]
