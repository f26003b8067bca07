"""The watch on one engine: probes, answers, and the end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import aiohttp.web
import pytest

from tests.support.ports import free_port
from xinference.process.command import ProgressProbe
from xinference.process.hang import EngineTraffic, HangWatch, wait_for_answer
from xinference.process.probe import Endpoint
from xinference.process.progress_watch import Limits, Work
from xinference.process.work_meter import WorkMeter

LIMITS = Limits(busy=20.0, answer=60.0, computing=1800.0)


class Scene:
    """An engine, its gateway and the clock, as the test wants them."""

    def __init__(self, **probe: Any) -> None:
        self.now = 0.0
        self.in_flight = 1
        self.probes = 0
        self.answered = asyncio.Event()
        self.doing = Work()
        self.restarts = 0
        self.byte_questions: list[str] = []
        self.watch = HangWatch(
            "r1",
            Endpoint(1, "key", "/health", "/v1/models", "m"),
            ProgressProbe("/progress", **probe),
            cast(WorkMeter, self),
            EngineTraffic(lambda replica_id: self.in_flight, self.last_byte),
            LIMITS,
            clock=lambda: self.now,
            pause=self.pause,
            ask=self.ask,
        )

    async def pause(self, seconds: float) -> None:
        self.now += seconds
        if self.now > 10_000:
            raise asyncio.CancelledError
        await asyncio.sleep(0)

    async def ask(self, endpoint: Endpoint, probe: ProgressProbe) -> None:
        self.probes += 1
        await self.answered.wait()

    async def last_byte(self, base_url: str) -> float:
        self.byte_questions.append(base_url)
        return self.now

    def restart(self) -> None:
        self.restarts += 1

    def work(self) -> Work:
        return self.doing


async def test_an_engine_that_leaves_its_probe_unanswered_hangs() -> None:
    scene = Scene()
    assert "answered no probe" in await scene.watch.wait()
    assert (scene.now, scene.probes, scene.restarts) == (80.0, 1, 1)


async def test_an_engine_that_answers_is_asked_again_and_never_hangs() -> None:
    scene = Scene()
    scene.answered.set()
    with pytest.raises(asyncio.CancelledError):
        await scene.watch.wait()
    assert scene.probes > 300


async def test_an_engine_that_computes_is_given_the_longer_time() -> None:
    scene = Scene()
    scene.doing = Work(busiest=1e6, second=1e6)
    await scene.watch.wait()
    assert scene.now == 1820.0


async def test_bytes_are_asked_for_only_if_the_probe_may_wait_behind_requests() -> None:
    scene = Scene(max_in_flight=2)
    await scene.watch.wait()
    assert not scene.byte_questions
    scene = Scene(max_in_flight=2)
    scene.in_flight = 2
    with pytest.raises(asyncio.CancelledError):
        await scene.watch.wait()
    assert set(scene.byte_questions) == {"http://127.0.0.1:1"}


@pytest.mark.process
@pytest.mark.parametrize("body", [None, {"prompt": "a"}])
async def test_a_probe_carries_the_key_and_goes_on_until_the_main_loop_answers(
    body: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xinference.process.hang.RETRY_SECONDS", 0.01)
    seen: list[tuple[str, str | None]] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        seen.append((request.method, request.headers.get("Authorization")))
        return aiohttp.web.Response(status=503 if len(seen) < 3 else 400)

    app = aiohttp.web.Application()
    app.router.add_route("*", "/alive", answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", port).start()
    endpoint = Endpoint(port, "key", "/health", "/v1/models", "m")
    await wait_for_answer(endpoint, ProgressProbe("/alive", body))
    await runner.cleanup()
    assert seen == [("GET" if body is None else "POST", "Bearer key")] * 3
