"""What comes before an engine can be started: weights here, in a form it loads, and an environment to run in."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from xinference.deployments.context import DeploymentContext
from xinference.deployments.state import DeploymentState
from xinference.engines.base import Engine
from xinference.environments.environments import Environments
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.sizing import size_launch
from xinference.weights import conversion, shape_reader
from xinference.weights.fetch import cached_path, fetch


class Stages:
    """The stages of one deployment; each says that it begins, shows its progress, and can be cancelled."""

    def __init__(
        self, around: DeploymentContext, uid: str, cancelled: threading.Event, show: Callable[[str, str], None]
    ) -> None:
        self._around = around
        self._uid = uid
        self._cancelled = cancelled
        self._show = show
        self.shape: ModelShape | None = None
        """What the weights' header says, once it has been looked at."""
        self.told: tuple[str, ...] = ()

    async def weights(self, plan: LaunchPlan) -> SizedPlan:
        """The plan with its weights here, their header read, and context, slots and devices chosen.

        Raises:
            Problem: what could not be fetched, read, converted or fitted.
        """
        self._say("plan", "; ".join(plan.reasons))
        sized = plan if isinstance(plan, SizedPlan) else await self._size(plan)
        if plan.version.spec.model_format != "ggmlv3":
            return sized
        self._show("LOADING", "convert")
        path = await self._in_thread(
            "convert", conversion.convert_if_needed, self._around.settings, sized.path, plan.version
        )
        return replace(sized, path=path)

    async def _size(self, launch: ResolvedLaunch) -> SizedPlan:
        path = await self._here(launch)
        engine = self._around.engines[launch.engine]
        extra = engine.extra_weight_files(launch, path)
        shape, self.told = await asyncio.to_thread(shape_reader.read_shape, path, launch.version, extra)
        self.shape = shape
        host = await asyncio.to_thread(read_host)
        there = available(host, self._around.admission.beside_those_that_stay(launch))
        return size_launch(launch, path, shape, there, engine.memory, self.told)

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

    async def _here(self, launch: ResolvedLaunch) -> Path:
        """The weights, fetched if they are not here."""
        version, source = launch.version, launch.origin
        if isinstance(source, Path):
            return source
        if found := await asyncio.to_thread(cached_path, self._around.hubs, version, source):
            return found
        self._show("LOADING", "fetch")
        self._say("fetch", f"fetching {version.version_id} from {source.hub} ({source.model_id})")
        return await self._in_thread("fetch", fetch, self._around.hubs, version, source)

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


class Loading:
    """Gets it for one deployment; can be cancelled."""

    def __init__(self, state: DeploymentState) -> None:
        self._state = state
        self._cancelled = threading.Event()
        self.stages = Stages(state.around, state.uid, self._cancelled, state.show)
        self._python: Path | None = None
        self._path: Path | None = None
        """The weights in a form that the engine loads, once `prepare` has been through."""

    @property
    def prepared(self) -> bool:
        """Whether `prepare` has been through."""
        return self._path is not None

    def cancel(self) -> None:
        """Nothing more is fetched, converted or installed."""
        self._cancelled.set()

    async def weights(self) -> None:
        """The weights here and their header read; the plan has its size."""
        self._state.plan = await self.stages.weights(self._state.plan)

    async def environment(self) -> Path:
        """The interpreter of its engine, whose environment is built if it is missing."""
        self._python = await self.stages.environment(self._state.engine)
        return self._python

    async def interpreter(self) -> Path:
        """The one that the deployment began with."""
        return self._python or await self.environment()

    async def prepare(self) -> None:
        """Weights and environment here, in a form that can be loaded, and the size known: no memory is taken."""
        plan = self._state.plan = await self.stages.weights(self._state.launch)
        await self.environment()
        self._path = plan.path

    def sized(self, host: Host, around: Occupancy) -> SizedPlan:
        """Its plan for such a room; what was planned and told to the user stays as it was told.

        Raises:
            Problem: ``does_not_fit``.
        """
        stages = self.stages
        if self._state.on_demand is None or self._path is None or stages.shape is None:
            return self._state.sized
        launch, memory, there = self._state.launch, self._state.engine.memory, available(host, around)
        return size_launch(launch, self._path, stages.shape, there, memory, stages.told)
