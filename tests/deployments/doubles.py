"""Doubles of all that a deployment acts on: engines, weights, the gateway's counts. No process, no thread, no sleep."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sized
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.deployments.inbox import Inbox
from xinference.deployments.preparation import Preparation, Runnable, Weights
from xinference.deployments.snapshot import DeploymentSnapshot
from xinference.engines.base import Engine
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host
from xinference.hosts import LOCAL_NODE
from xinference.hubs.base import Hub
from xinference.launch.match import match
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.nodes.local import LocalNode
from xinference.nodes.memory_use import MemoryUse
from xinference.nodes.node import Node, ReplicaLike
from xinference.process.command import Exit
from xinference.process.snapshot import ReplicaSnapshot, ReplicaState
from xinference.routing.interfaces import ReplicaLoad
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.units import GIB, MIB
from xinference.work_threads import LongWork

HOST = Host(2, 16 * GIB, 8 * GIB)
SHAPE = ModelShape(
    weights_bytes=100 * MIB, kv_bytes_per_token=1000, trained_context=4096, vocab_size=1000, hidden=64, heads=4
)
SIZING = Sizing(512, 1, 100 * MIB, MIB, MIB)
ENGINE = "llama.cpp"
DIED = Exit(1, None, ("its last words",), 0.1)


async def turns() -> None:
    """Let every task run until each waits for something that the test has to do."""
    loop: Any = asyncio.get_running_loop()  # asyncio has no public list
    ready: Sized = loop._ready
    quiet = 0
    for _ in range(200):
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1
        if quiet == 3:  # what a timer or a descriptor wakes is ready one turn later
            return


class FakeReplica:
    """A `ReplicaLike` whose life the test decides."""

    def __init__(self, replica_id: str, changed: Callable[[], None], context: dict[str, Any] | None = None) -> None:
        self.snapshot = ReplicaSnapshot(
            replica_id, ReplicaState.STARTING, 1, f"http://{replica_id}", "key", context or {}, Path(replica_id)
        )
        self._changed = changed
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[Exit] = loop.create_future()
        for result in (self._ready, self._exited):
            result.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.stopped = self.detached = False
        self.stops: asyncio.Event = asyncio.Event()
        """Unset: a stop takes until the test lets it end."""
        self.stops.set()

    @property
    def over(self) -> bool:
        return self._exited.done()

    def report_to(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def become_ready(self) -> None:
        self._show(ReplicaState.READY)
        if not self._ready.done():
            self._ready.set_result(None)

    def die(self, exit: Exit = DIED, problem: Problem | None = None) -> None:
        if self.over:
            return
        self.snapshot = dataclasses.replace(self.snapshot, exit=exit)
        self._show(ReplicaState.EXITED)
        self._exited.set_result(exit)
        if not self._ready.done():
            died = Problem(Code.ENGINE_DIED, f"The engine {exit.reason} before it was ready.", stage="start")
            self._ready.set_exception(problem or died)

    def let_stop(self) -> None:
        self.stops.set()

    async def wait_ready(self) -> None:
        await asyncio.shield(self._ready)

    async def wait_exited(self) -> Exit:
        return await asyncio.shield(self._exited)

    async def stop(self) -> Exit | None:
        self.stopped = True
        await self.stops.wait()
        self.die(Exit(0, None, (), 1.0, requested=True), Problem(Code.ENGINE_STOPPED, "The engine was stopped."))
        return None

    async def detach(self) -> None:
        self.detached = True
        gone = Problem(Code.ENGINE_DETACHED, "Another server owns the engine now.")
        for result in (self._ready, self._exited):
            if not result.done():
                result.set_exception(gone)

    def _show(self, state: ReplicaState) -> None:
        self.snapshot = dataclasses.replace(self.snapshot, state=state)
        self._changed()


class FakeStarter:
    """A `Starter` of `FakeReplica`s."""

    def __init__(self) -> None:
        self.started: list[FakeReplica] = []
        self.numbers: list[int] = []
        self.left: dict[str, dict[str, Any]] = {}
        """Replicas of an earlier server, with the context that they were started with."""
        self.refusal: Problem | None = None
        self.instant = False
        """Each is ready at once."""

    async def start(
        self, replica_id: str, plan: SizedPlan, number: int, python: Path, changed: Callable[[], None]
    ) -> ReplicaLike:
        if self.refusal is not None:
            raise self.refusal
        replica = FakeReplica(replica_id, changed)
        self.started.append(replica)
        self.numbers.append(number)
        if self.instant:
            replica.become_ready()
        return replica

    async def adopt(self, replica_id: str, changed: Callable[[], None]) -> ReplicaLike | None:
        if replica_id not in self.left:
            return None
        replica = FakeReplica(replica_id, changed, self.left[replica_id])
        self.started.append(replica)
        replica.become_ready()
        return replica

    async def measure(self, replica: ReplicaLike) -> MemoryUse | None:
        return MemoryUse(MIB, None)

    @property
    def running(self) -> list[FakeReplica]:
        return [replica for replica in self.started if not replica.over]


class FakePreparation(Preparation):
    """Weights and environment that come when the test says so; at once, unless a step is held."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.problems: dict[str, Problem] = {}
        self.calls: list[str] = []
        self.cancelled: list[str] = []
        self.python = Path("python")
        self.prepared: dict[str, Runnable] = {}
        self._release = asyncio.Event()

    def release(self) -> None:
        """Let the held steps go on."""
        self.held.clear()
        self._release.set()

    async def read_weights(self, launch: ResolvedLaunch, path: Path | None = None) -> Weights:
        await self._step("fetch" if path is None else "read")
        return Weights(Path("weights"), SHAPE, (), HOST)

    async def make_runnable(self, plan: SizedPlan) -> Runnable:
        await self._step("environment")
        return Runnable(plan.path, self.python)

    async def find_interpreter(self) -> Path:
        await self._step("interpreter")
        return self.python

    async def _step(self, name: str) -> None:
        self.calls.append(name)
        try:
            while name in self.held:
                self._release.clear()
                await self._release.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        if name in self.problems:
            raise self.problems[name]


class FakeLoad:
    """A `ReplicaLoad` that the test counts for."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.ended: dict[str, float] = {}
        self.forgotten: list[str] = []
        self.settles: int | None = None
        """So many calls of `settled` return; those after them wait until it is None."""
        self._open = asyncio.Event()

    def at(self, replica_id: str) -> int:
        return self.counts.get(replica_id, 0)

    def last_end(self, replica_id: str) -> float | None:
        return self.ended.get(replica_id)

    async def last_byte(self, base_url: str) -> float:
        return 0.0

    def forget(self, replica_id: str) -> None:
        self.forgotten.append(replica_id)

    async def settled(self) -> None:
        if self.settles is None:
            return
        if self.settles > 0:
            self.settles -= 1
            return
        self._open.clear()
        while self.settles is not None:
            await self._open.wait()

    def settle_all(self) -> None:
        self.settles = None
        self._open.set()


@dataclass
class World:
    """A server's services around deployments, with real admission, store and events."""

    store: Store
    settings: Settings
    load: FakeLoad = field(default_factory=FakeLoad)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    published: list[dict[str, DeploymentSnapshot]] = field(default_factory=list)
    """The snapshots at each publication."""
    host: Host = HOST

    def __post_init__(self) -> None:
        self.events = EventLog(self.store)
        self.admission = Admission(self.settings, self.store, self.load, self.deployments.values, self._read_host)
        engines = {ENGINE: LlamaCpp()}
        self.context = DeploymentContext(
            self.settings,
            self.store,
            self.events,
            local_nodes(self.settings, engines, self.load),
            engines,
            self._publish,
            self.load,
            self.admission,
        )
        self.starter = FakeStarter()
        self.preparation = FakePreparation()

    def add(
        self, uid: str = "one", *, begin: bool = True, problem: Problem | None = None, **request: Any
    ) -> Deployment:
        """A deployment that is launched, or taken up if the store has replicas of it."""
        plan = launch_of(uid, **request)
        if not self.store.replicas(uid):
            self.store.add_deployment(uid, encoded(plan))
        deployment = Deployment(plan, self.context, 0.0, problem, starter=self.starter, preparation=self.preparation)
        self.deployments[uid] = deployment
        if begin:
            deployment.begin()
        return deployment

    @property
    def ledger(self) -> dict[str, SizedPlan]:
        """The plans that memory is promised to."""
        return self.admission._scheduler.ledger

    @property
    def queue(self) -> list[str]:
        """Who waits for memory."""
        return list(self.admission._scheduler.waiting)

    def said(self, uid: str = "one") -> list[str]:
        """The stages of its events."""
        return [event["stage"] for event in self.events.stored(uid)]

    def contents(self, uid: str = "one") -> list[str]:
        return [event["event_content"] for event in self.events.stored(uid)]

    async def _read_host(self) -> Host:
        return self.host

    def _publish(self) -> None:
        self.published.append({uid: deployment.snapshot for uid, deployment in self.deployments.items()})


def local_nodes(
    settings: Settings, engines: Mapping[str, Engine], load: ReplicaLoad, hubs: Mapping[str, Hub] = MappingProxyType({})
) -> dict[str, Node]:
    """This machine as the only node."""
    return {LOCAL_NODE: LocalNode(settings, hubs, engines, load, LongWork())}


async def read_test_host() -> Host:
    return HOST


def encoded(plan: ResolvedLaunch) -> str:
    return msgspec.json.encode(plan.request).decode()


def wanted(store: Store, uid: str = "one") -> int:
    """The number of replicas that the row of a deployment asks for."""
    (row,) = [row for row in store.deployments() if row.uid == uid]
    return msgspec.json.decode(row.request, type=LaunchRequest).replica


def launch_of(uid: str, *, engine: str = ENGINE, **fields: Any) -> ResolvedLaunch:
    """A launch whose weights have not been read."""
    request = LaunchRequest(model_name="llama-2-chat", model_format="ggufv2", model_uid=uid, **fields)
    version = match(builtin_families(), request)
    return ResolvedLaunch(LaunchDraft(uid, request, version, engine, use_gpu=False, threads=1), Path("weights"))


def sized_plan(uid: str, **fields: Any) -> SizedPlan:
    """The same with a size."""
    return SizedPlan(launch_of(uid, **fields), Path("weights"), SIZING)


def inbox_of(deployment: Deployment) -> Inbox:
    """Where its owner gets messages, for tests that send what only a helper sends."""
    return deployment._inbox


@asynccontextmanager
async def running_world(home: Path, **further: Any) -> AsyncIterator[World]:
    """A world in this folder, with further settings; all that it runs ends with the block."""
    store = Store(home / "x.db")
    made = World(store, Settings(home=home, restart_backoff_seconds=0.0, restart_limit=1, **further))
    deciding = asyncio.create_task(made.admission.run())
    try:
        yield made
    finally:
        made.load.settle_all()
        made.preparation.release()
        for replica in made.starter.started:
            replica.stops.set()
        async with asyncio.timeout(30):
            for deployment in made.deployments.values():
                await deployment.end("terminate")
        deciding.cancel()
        with suppress(asyncio.CancelledError):
            await deciding
        await turns()
        store.close()
