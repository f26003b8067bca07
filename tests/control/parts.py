"""The parts of the control side over a store, with a planner that decides at once. No process is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from tests.deployments.doubles import ENGINE, FakeLoad, launch_of, local_nodes, read_test_host
from xinference.config import Settings
from xinference.control.deployment_names import DeploymentNames
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.launch_progress import LaunchProgress
from xinference.control.launches import Launches
from xinference.control.planner import Planner
from xinference.control.publisher import Publisher
from xinference.control.restarts import Restarts
from xinference.control.restoration import Restoration
from xinference.control.store_writer import StoreWriter
from xinference.control.terminations import Terminations
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.engines.llama_cpp.engine import LlamaCpp
from xinference.errors import Problem
from xinference.launch.plan import LaunchDraft, ResolvedLaunch
from xinference.launch.request import LaunchRequest
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.store.launch_history import LaunchHistory
from xinference.weights.derivation import DerivedRequest
from xinference.work_threads import LongWork


class FakePlanner:
    """Plans every request as a model of llama.cpp whose weights are not sized, or raises `problem`."""

    def __init__(self) -> None:
        self.resolver = self
        self.problem: Problem | None = None
        self.drafts: list[str] = []
        """The uid of each draft."""

    async def resolve(self, first: Any, second: Any = None) -> Any:
        """The resolved launch of a draft; or the derived request of a request, as the resolver gives it."""
        if isinstance(first, LaunchRequest):
            return DerivedRequest(first)
        return ResolvedLaunch(first, Path("weights"))

    async def draft(self, request: LaunchRequest, uid: str) -> LaunchDraft:
        self.drafts.append(uid)
        if self.problem is not None:
            raise self.problem
        return replace(launch_of(uid).draft, request=msgspec.structs.replace(request, model_uid=uid))

    async def size(self, launch: ResolvedLaunch, request: LaunchRequest) -> None:
        return None

    async def forecast(self, launch: ResolvedLaunch, request: LaunchRequest) -> None:
        return None


class Parts:
    """All parts of a controller."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.events = EventLog(store)
        self.history = LaunchHistory(store)
        self.publisher = Publisher()
        self.registry = DeploymentRegistry(self.publisher, self.history)
        self.writer = StoreWriter(store)
        self.ended: list[str] = []
        self.terminations = Terminations(
            self.registry, store, self.writer, self.events, self.history, settings.log_dir, self.ended.append
        )
        self.engines = {ENGINE: LlamaCpp()}
        load, work = FakeLoad(), LongWork(settings.hub_seconds)
        self.context = DeploymentContext(
            settings,
            store,
            self.events,
            local_nodes(settings, self.engines, load),
            self.engines,
            self.registry.publish,
            load,
            Admission(settings, store, load, self.registry.working, read_test_host),
        )
        self.fake_planner = FakePlanner()
        planner = cast(Planner, self.fake_planner)
        self.names = DeploymentNames(self.registry, self.publisher, self.terminations, self.engines, work.files)
        self.restoration = Restoration(self.registry, planner, self.context, self.history)
        self.restarts = Restarts(self.registry, self.names, self.terminations, planner, self.context, self.history)
        self.launches = Launches(
            self.registry,
            self.names,
            self.terminations,
            self.restarts,
            planner,
            self.context,
            self.writer,
            self.history,
        )
        self.progress = LaunchProgress(self.registry, self.events, self.history)

    def add(self, uid: str, problem: Problem | None = None, **fields: Any) -> Deployment:
        """A deployment with its row, which has not begun."""
        plan = launch_of(uid, **fields)
        self.store.add_deployment(uid, msgspec.json.encode(plan.request).decode())
        deployment = Deployment(plan, self.context, 0.0, problem)
        self.registry.add(deployment)
        self.registry.publish()
        return deployment

    def uids(self) -> list[str]:
        return [deployment.uid for deployment in self.registry]

    def rows(self) -> list[str]:
        """The uids of the rows that the next server restores."""
        return [row.uid for row in self.store.deployments() if row.wanted]
