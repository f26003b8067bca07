"""A launch on an engine whose environment is missing; the engine itself is refused at its start."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.deployments.doubles import ENGINE, local_nodes, read_test_host
from tests.environments.fake_engine import SPEC, FakeEngine, alone
from tests.support.cluster import linked
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.deployments.preparation import Preparation
from xinference.deployments.snapshot import Stage
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.engines.replica_placement import Placement
from xinference.environments.spec import EnvironmentSpec
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.nodes.node import Node
from xinference.process.command import EngineCommand
from xinference.routing.interfaces import NoLoad
from xinference.store.database import Store
from xinference.store.event_log import EventLog

pytestmark = pytest.mark.process


class Tiny(LlamaCpp):
    """Runs in an environment and remembers where."""

    def __init__(self, spec: EnvironmentSpec) -> None:
        self.pythons: list[Path] = []
        self._spec = spec

    def environment(self, host: Host) -> EnvironmentSpec | None:
        return self._spec

    def command(self, plan: SizedPlan, api_key: str, placement: Placement) -> EngineCommand:
        self.pythons.append(placement.python)
        raise Problem(
            "far_enough",
            "Nothing is started here.",
            status=503,
        )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = alone(tmp_path, monkeypatch)
    fake.make()
    monkeypatch.setattr("xinference.environments.environments.SHIPPED", fake.locks)
    return fake


async def launch(
    fake: FakeEngine, store: Store, links: Links, *uids: str
) -> tuple[Tiny, list[Deployment], list[dict[str, Any]]]:
    """Launch at once, to the end of each; the engine, the deployments and the first one's events."""
    engine, events = Tiny(fake.spec), EventLog(store)
    load, deployments, changed = NoLoad(), list[Deployment](), asyncio.Event()
    admission = Admission(Settings(), store, load, lambda: deployments, read_test_host)
    settings, engines = Settings(home=fake.home), {"Tiny": engine}
    nodes = await links.behind(local_nodes(settings, engines, load))
    around = DeploymentContext(settings, store, events, nodes, engines, changed.set, load, admission)
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2")
    version = match(builtin_families(), request)
    for uid in uids:
        store.add_deployment(uid, "{}")
        sizing = Sizing(4096, 1, 1, 1, 1)
        draft = LaunchDraft(uid, request, version, "Tiny", use_gpu=False, threads=1)
        plan = SizedPlan(ResolvedLaunch(draft, fake.root), fake.root, sizing)
        deployments.append(Deployment(plan, around, created=0.0))
    for deployment in deployments:
        deployment.begin()
    deciding = asyncio.create_task(admission.run())
    async with asyncio.timeout(60):
        while not all(deployment.problem for deployment in deployments):
            await changed.wait()
            changed.clear()
    deciding.cancel()
    for deployment in deployments:
        await deployment.end("terminate")
    return engine, deployments, events.stored(uids[0])


class Links:
    """Puts a node behind a link, if the test is about a node of a cluster."""

    def __init__(self, stack: AsyncExitStack, *, is_remote: bool) -> None:
        self._stack = stack
        self._is_remote = is_remote

    async def behind(self, nodes: dict[str, Node]) -> dict[str, Node]:
        if not self._is_remote:
            return nodes
        return {LOCAL_NODE: (await self._stack.enter_async_context(linked(nodes[LOCAL_NODE]))).remote}


@pytest.fixture(params=["this machine", "a node of a cluster"])
async def links(request: pytest.FixtureRequest) -> AsyncIterator[Links]:
    async with AsyncExitStack() as stack:
        yield Links(stack, is_remote=request.param != "this machine")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite")


async def test_a_launch_installs_what_its_engine_runs_in(tiny: FakeEngine, store: Store, links: Links) -> None:
    engine, (deployment,), events = await launch(tiny, store, links, "one")
    assert deployment.problem is not None and deployment.problem.code == "far_enough"
    assert engine.pythons == [tiny.environments().find(SPEC)]
    said = [event["event_content"] for event in events if event["stage"] == "environment"]
    assert said == ["installing Tiny 1.0 (0.0 GB)"]


async def test_two_launches_at_once_install_it_once(tiny: FakeEngine, store: Store, links: Links) -> None:
    count = tiny.root / "count"
    tiny.verify = f"open({str(count)!r}, 'a').write('x')"
    tiny.make()
    engine, _, _ = await launch(tiny, store, links, "one", "two")
    assert count.read_text() == "x"
    assert engine.pythons == [tiny.environments().find(SPEC)] * 2


async def test_what_is_installed_is_not_spoken_of(tiny: FakeEngine, store: Store, links: Links) -> None:
    await launch(tiny, store, links, "one")
    engine, _, events = await launch(tiny, store, links, "two")
    assert engine.pythons
    assert "environment" not in {event["stage"] for event in events}


async def test_a_restart_under_a_newer_release_runs_in_the_environment_of_its_engine_version(
    tiny: FakeEngine, store: Store, links: Links
) -> None:
    """A restart prepares the model again: by the version of the engine that the release has now."""
    await launch(tiny, store, links, "one")
    tiny.spec = EnvironmentSpec(SPEC.engine, "2.0", SPEC.accelerator)
    tiny.make()
    engine, _, events = await launch(tiny, store, links, "two")
    older, newer = (tiny.environments().find(spec) for spec in (SPEC, tiny.spec))
    assert older is not None and newer is not None and engine.pythons == [newer] != [older]
    assert [event["event_content"] for event in events if event["stage"] == "environment"] == [
        "installing Tiny 2.0 (0.0 GB)"
    ]


async def test_a_failed_installation_fails_the_launch_in_its_stage(
    tiny: FakeEngine, store: Store, links: Links
) -> None:
    tiny.verify = "import tiny_engine.kernels"
    tiny.make()
    engine, (deployment,), _ = await launch(tiny, store, links, "one")
    assert deployment.problem is not None
    assert (deployment.problem.code, deployment.problem.stage) == ("environment_failed", "environment")
    assert deployment.problem.log_tail
    assert engine.pythons == []


async def stages_of(
    store: Store, links: Links, home: Path, stages: list[tuple[Stage, str | None]], hub: Hub
) -> Preparation:
    """A preparation whose hub and environments are not used."""
    events = EventLog(store)
    load = NoLoad()
    admission = Admission(Settings(), store, load, list, read_test_host)
    settings, engines = Settings(home=home), {ENGINE: LlamaCpp()}
    nodes = await links.behind(local_nodes(settings, engines, load, {"local": cast(Any, hub)}))
    context = DeploymentContext(settings, store, events, nodes, engines, lambda: None, load, admission)
    return Preparation(context, "one", ENGINE, lambda stage, content: stages.append((stage, content)))


class Hub:
    """Fetches until it is cancelled."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()

    def find_cached(self, version: Any, source: Any) -> Path | None:
        return None

    def fetch(self, version: Any, source: Any, progress: Any, cancelled: threading.Event) -> Path:
        self.began.set()
        progress(1, 2, "weights")
        assert cancelled.wait(60)
        self.ended.set()
        raise Problem(Code.CANCELLED, "It was cancelled.")


async def test_a_preparation_that_is_cancelled_waits_for_its_thread(store: Store, links: Links, tmp_path: Path) -> None:
    stages: list[tuple[Stage, str | None]] = []
    hub = Hub()
    preparation = await stages_of(store, links, tmp_path, stages, hub)
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2")
    version = match(builtin_families(), request)
    source = msgspec.structs.replace(version.spec.sources[0], hub="local")
    launch = ResolvedLaunch(LaunchDraft("one", request, version, "llama.cpp", use_gpu=False, threads=1), source)
    fetching = asyncio.create_task(preparation.read_weights(launch))
    await asyncio.to_thread(hub.began.wait, 60)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert hub.ended.is_set(), "nothing of it goes on afterwards"
    assert [stage for stage, _ in stages] == [Stage.FETCH]


async def test_weights_that_can_not_be_fetched_fail_in_that_stage(store: Store, links: Links, tmp_path: Path) -> None:
    preparation = await stages_of(store, links, tmp_path, [], Hub())
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2")
    version = match(builtin_families(), request)
    source = msgspec.structs.replace(version.spec.sources[0], hub="modelscope")
    launch = ResolvedLaunch(LaunchDraft("one", request, version, "llama.cpp", use_gpu=False, threads=1), source)
    with pytest.raises(Problem) as failed:
        await preparation.read_weights(launch)
    assert (failed.value.code, failed.value.stage) == ("hub_unavailable", "fetch")
