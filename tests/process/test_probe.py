"""Whether an engine is up, and ours."""

from __future__ import annotations

import aiohttp
import pytest

from tests.fakes.running import start_fake_engine
from tests.support.ports import free_port
from xinference.process.probe import Endpoint, ProbeResult, probe

pytestmark = pytest.mark.process


def _endpoint(base_url: str, api_key: str = "fake-key", model_name: str = "fake") -> Endpoint:
    return Endpoint(int(base_url.rpartition(":")[2]), api_key, "/health", "/v1/models", model_name)


async def test_a_ready_engine_of_ours_is_healthy() -> None:
    async with start_fake_engine() as engine, aiohttp.ClientSession() as session:
        assert await probe(_endpoint(engine.base_url), session) is ProbeResult.HEALTHY
        assert await probe(_endpoint(engine.base_url, api_key="wrong"), session) is ProbeResult.LOADING
        assert await probe(_endpoint(engine.base_url, model_name="other"), session) is ProbeResult.LOADING


async def test_a_loading_engine_is_loading() -> None:
    async with start_fake_engine(health_delay=600) as engine, aiohttp.ClientSession() as session:
        assert await probe(_endpoint(engine.base_url), session) is ProbeResult.LOADING


async def test_a_closed_port_is_silent() -> None:
    async with aiohttp.ClientSession() as session:
        assert await probe(_endpoint(f"http://127.0.0.1:{free_port()}"), session) is ProbeResult.SILENT


async def test_an_engine_whose_listing_fails_is_loading() -> None:
    async with start_fake_engine(models_status=500) as engine, aiohttp.ClientSession() as session:
        assert await probe(_endpoint(engine.base_url), session) is ProbeResult.LOADING


async def test_a_process_that_answers_no_requests_is_ready_as_soon_as_it_runs() -> None:
    further_rank = Endpoint(free_port(), "key", "/health", "/v1/models", "m", answers=False)
    async with aiohttp.ClientSession() as session:
        assert await probe(further_rank, session) is ProbeResult.HEALTHY
