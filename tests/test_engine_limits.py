"""A request that stops an engine, takes its memory or kills it, from a client of the gateway to the restart.

Deployment, keeper and gateway are those of the server; the engine is a scripted one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deployments.doubles import FakePreparation, encoded, local_nodes, read_test_host, sized_plan
from tests.fakes.running import ENGINE
from tests.gateway.harness import ALL_PATHS, CHAT, listening, management
from tests.support.polling import until_async
from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.replica_placement import Placement
from xinference.gateway.app import Gateway
from xinference.gateway.balancer import Balancer
from xinference.launch.plan import LaunchPlan
from xinference.nodes import engine_guard
from xinference.process.command import EngineCommand, ProgressProbe
from xinference.routing.table import Route, RoutingTable
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.units import MIB

pytestmark = pytest.mark.process
PATH = "/v1/chat/completions"
BAD: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "a bad request"}]}
GOOD: dict[str, Any] = CHAT | {"model": "one"}


class Scripted(LlamaCpp):
    """Starts the fake engine."""

    def __init__(self, script: dict[str, Any]) -> None:
        self._script = script

    def paths(self, plan: LaunchPlan) -> frozenset[str]:
        return ALL_PATHS

    def command(self, plan: LaunchPlan, api_key: str, placement: Placement) -> EngineCommand:
        argv = (sys.executable, str(ENGINE), "--port", "{port}", "--script", json.dumps(self._script))
        env, progress = {"FAKE_ENGINE_KEY": api_key}, ProgressProbe("/progress")
        return EngineCommand(argv=argv, env=env, model_name="fake", api_key=api_key, progress=progress)


@dataclass
class Server:
    """One deployment and the gateway in front of it. Its router has the table of this deployment."""

    deployment: Deployment
    balancer: Balancer
    url: str = ""
    http: aiohttp.ClientSession | None = None

    @property
    def in_flight(self) -> int:
        """The requests at the engine."""
        return sum(self.balancer.at(name) for name in self.deployment.snapshot.replica_ids)

    @property
    def table(self) -> RoutingTable:
        return RoutingTable({"one": self.deployment.route})

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        await until_async("the model is ready", lambda: bool(self.deployment.route.targets))
        return self.deployment.route

    async def post(self, body: dict[str, Any]) -> tuple[int, str]:
        """Status and code of an answer; the code of a success is empty."""
        assert self.http is not None
        async with self.http.post(self.url + PATH, json=body) as answer:
            told = await answer.json()
            return answer.status, told.get("error", {}).get("code", "")

    async def stream(self, body: dict[str, Any]) -> str:
        assert self.http is not None
        async with self.http.post(self.url + PATH, json=body | {"stream": True}) as answer:
            return await answer.text()


Serve = Callable[..., Any]


@pytest.fixture
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    monkeypatch.setattr(engine_guard, "STARTING_FACTOR", 1.25)
    async with AsyncExitStack() as stack:

        async def serve(**script: Any) -> Server:
            return await stack.enter_async_context(_served(tmp_path, script))

        yield serve


@asynccontextmanager
async def _served(home: Path, script: dict[str, Any]) -> AsyncIterator[Server]:
    settings = Settings(
        home=home,
        stop_seconds=2,
        restart_backoff_seconds=0.01,
        restart_limit=1,
        probe_seconds=0.1,
        hung_seconds=0.6,
        engine_memory_margin=100 * MIB,  # the plan has 102 MiB
    )
    store, plan, made, balancer = Store(home / "x.db"), sized_plan("one"), list[Deployment](), Balancer()
    admission = Admission(settings, store, balancer, lambda: made, read_test_host)
    engines, events = {"llama.cpp": Scripted(script)}, EventLog(store)
    nodes = local_nodes(settings, engines, balancer)
    context = DeploymentContext(settings, store, events, nodes, engines, lambda: None, balancer, admission)
    store.add_deployment("one", encoded(plan.launch))
    preparation = FakePreparation()
    preparation.python = Path(sys.executable)
    deployment = Deployment(plan, context, created=0.0, preparation=preparation)
    made.append(deployment)
    server, granting = Server(deployment, balancer), asyncio.create_task(admission.run())
    gateway = Gateway(server, settings, management, balancer=balancer)
    deployment.begin()
    await until_async("the model is ready", lambda: deployment.ready)
    async with listening(gateway) as (_, _, server.url), aiohttp.ClientSession() as server.http:
        yield server
    await gateway.close()
    await deployment.end("terminate")
    granting.cancel()
    store.close()


ENDINGS = [
    ({"hang": {"how": "sleep", "on": "bad"}}, "engine_hung"),
    ({"hang": {"how": "spin", "on": "bad"}}, "engine_hung"),
    ({"eat": {"mib_per_second": 200, "on": "bad"}}, "engine_out_of_memory"),
    ({"die": {"on_request": True, "signal": "SIGSEGV", "on": "bad"}}, "engine_died"),
]


@pytest.mark.parametrize(("script", "code"), ENDINGS)
async def test_the_engine_is_started_again_and_the_request_that_ended_it_is_refused(
    serve: Serve, script: dict[str, Any], code: str
) -> None:
    server = await serve(**script)
    assert await server.post(GOOD) == (200, "")
    assert await server.post(BAD) == (502, code)
    assert await server.post(GOOD) == (200, "")
    for _ in range(3):
        assert await server.post(BAD) == (502, "request_crashes_engine")
    assert await server.post(GOOD) == (200, "")
    assert server.deployment.problem is None


@pytest.mark.parametrize(("script", "code"), ENDINGS)
async def test_requests_that_end_engines_one_after_the_other_do_not_take_the_model_from_others(
    serve: Serve, script: dict[str, Any], code: str
) -> None:
    server = await serve(**script)
    for number in range(4):  # more than the limit of restarts
        other = BAD | {"seed": number}
        assert await server.post(other) == (502, code)
    assert await server.post(GOOD) == (200, "")
    assert server.deployment.problem is None


async def test_a_client_whose_stream_breaks_is_told_that_the_engine_hung(serve: Serve) -> None:
    server = await serve(chunks=50, interval=0.3, hang={"how": "spin", "on": "bad"})
    streaming = asyncio.create_task(server.stream(GOOD))
    await until_async("the stream runs", lambda: server.in_flight == 1)
    assert await server.post(BAD) == (502, "engine_hung")
    assert "engine_hung" in await streaming


async def test_a_request_whose_client_has_left_still_stops_nobody_for_long(serve: Serve) -> None:
    server = await serve(hang={"how": "spin", "on": "bad"})
    leaving = asyncio.create_task(server.post(BAD))
    await until_async("the engine has it", lambda: server.in_flight == 1)
    leaving.cancel()
    # Another waits for the engine meanwhile: it is not taken for the cause.
    assert await server.post(GOOD) == (502, "engine_hung")
    assert await server.post(GOOD) == (200, "")


async def test_an_engine_that_ends_again_and_again_without_requests_is_given_up(serve: Serve) -> None:
    server = await serve(die={"after_seconds": 1.0})
    await until_async("it is given up", lambda: server.deployment.problem is not None)
    assert server.deployment.problem is not None and server.deployment.problem.code == "engine_keeps_dying"
