"""What comes before an engine can be started: weights here, in a form it loads, and an environment to run in."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xinference.config import Settings
from xinference.control.admission import Admission
from xinference.engines.base import Engine
from xinference.environments.environments import Environments
from xinference.errors import Problem
from xinference.hardware.devices import read_host
from xinference.hubs.base import Hub
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan
from xinference.planning.settle import settle
from xinference.store.database import Store
from xinference.store.event_log import EventLog
from xinference.weights import conversion, shape_reader
from xinference.weights.fetch import fetch


@dataclass(frozen=True)
class Surroundings:
    """What every deployment works with."""

    settings: Settings
    store: Store
    events: EventLog
    hubs: Mapping[str, Hub]
    engines: Mapping[str, Engine]
    changed: Callable[[], None]
    """Publishes a new routing table."""
    admission: Admission
    """Who else takes memory."""


class Stages:
    """The stages of one deployment; each says that it begins, shows its progress, and can be cancelled."""

    def __init__(
        self, around: Surroundings, uid: str, cancelled: threading.Event, show: Callable[[str, str], None]
    ) -> None:
        self._around = around
        self._uid = uid
        self._cancelled = cancelled
        self._show = show
        self.shape: ModelShape | None = None
        """What the weights' header says, once it has been looked at."""
        self.told: tuple[str, ...] = ()

    async def weights(self, plan: LaunchPlan) -> LaunchPlan:
        """The plan with its weights here, their header read, and context, slots and devices chosen.

        Raises:
            Problem: what could not be fetched, read, converted or fitted.
        """
        self._say("plan", "; ".join(plan.reasons))
        path = plan.path or await self._fetch(plan)
        if plan.sizing is None:
            shape, self.told = await asyncio.to_thread(shape_reader.look_at_all, replace(plan, path=path))
            self.shape = shape
            host = await asyncio.to_thread(read_host)
            around = self._around.admission.beside_those_that_stay(plan)
            plan = settle(plan, path, shape, host, self.told, around)
        if plan.version.spec.model_format == "ggmlv3":
            self._show("LOADING", "convert")
            path = await self._in_thread("convert", conversion.runnable, self._around.settings, path, plan.version)
        return replace(plan, path=path)

    async def environment(self, engine: Engine) -> Path:
        """The interpreter that the engine runs with; what it needs is installed first.

        Raises:
            Problem: the environment could not be built.
        """
        spec = engine.environment(await asyncio.to_thread(read_host))
        if spec is None:
            return Path(sys.executable)
        environments = Environments(self._around.settings)
        if found := await asyncio.to_thread(environments.find, spec):
            return found
        self._show("LOADING", "environment")
        size = f"{environments.size(spec) / 1e9:.1f} GB"
        self._say("environment", f"installing {spec.engine} {spec.version} ({size})")
        return await self._in_thread("environment", environments.install, spec)

    async def _fetch(self, plan: LaunchPlan) -> Path:
        assert plan.source is not None
        self._show("LOADING", "fetch")
        self._say("fetch", f"fetching {plan.version.version_id} from {plan.source.hub} ({plan.source.model_id})")
        return await self._in_thread("fetch", fetch, self._around.hubs, plan)

    async def _in_thread(self, stage: str, work: Callable[..., Path], *arguments: object) -> Path:
        """Do long blocking work that reports its progress and can be cancelled."""
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int | None, file: str) -> None:
            loop.call_soon_threadsafe(self._around.events.progress, self._uid, stage, file, done, total)

        job = asyncio.ensure_future(asyncio.to_thread(work, *arguments, progress, self._cancelled))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            # The thread sees the cancellation flag; wait, so that nothing of it goes on after us.
            await asyncio.gather(job, return_exceptions=True)
            raise
        except Problem as problem:
            raise problem.at(stage) from None

    def _say(self, stage: str, content: str) -> None:
        self._around.events.add(self._uid, "INFO", stage, content)
