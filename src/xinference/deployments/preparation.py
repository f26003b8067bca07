"""The steps before an engine can start: fetch, read and convert the weights, and build the environment."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xinference.deployments.context import DeploymentContext
from xinference.deployments.snapshot import Stage
from xinference.engines.base import Engine
from xinference.environments.environments import Environments
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
from xinference.launch.model_shape import ModelShape
from xinference.launch.plan import ResolvedLaunch, SizedPlan
from xinference.weights import conversion, shape_reader
from xinference.weights.fetch import cached_path, fetch


@dataclass(frozen=True)
class Weights:
    """Weights on this machine, and what sizing must know of them and of the host."""

    path: Path
    shape: ModelShape
    notes: tuple[str, ...]
    """What reading the header gave to say."""
    host: Host


@dataclass(frozen=True)
class Runnable:
    """What an engine is started with."""

    path: Path
    """Weights in a form that the engine loads."""
    python: Path
    """The interpreter of its environment."""


class Preparation:
    """The steps of one deployment; each says that it begins, shows its progress, and can be cancelled.

    It changes nothing of the deployment: `begin_stage` and the results go to its owner.
    """

    def __init__(
        self, context: DeploymentContext, uid: str, engine: Engine, begin_stage: Callable[[Stage, str | None], None]
    ) -> None:
        self._context = context
        self._uid = uid
        self._engine = engine
        self._begin_stage = begin_stage

    async def read_weights(self, launch: ResolvedLaunch, path: Path | None = None) -> Weights:
        """The weights of a launch, fetched if they are not here, and their header; `path`: they are there.

        Raises:
            Problem: what could not be fetched or read.
        """
        path = path or await self._find_or_fetch(launch)
        extra = self._engine.extra_weight_files(launch, path)
        shape, notes = await asyncio.to_thread(shape_reader.read_shape, path, launch.version, extra)
        return Weights(path, shape, notes, await asyncio.to_thread(read_host))

    async def make_runnable(self, plan: SizedPlan) -> Runnable:
        """The weights converted if the engine can't load them, and the engine's environment.

        Raises:
            Problem: what could not be converted or installed.
        """
        path = plan.path
        if plan.version.spec.model_format == "ggmlv3":
            self._begin_stage(Stage.CONVERT, None)
            settings = self._context.settings
            path = await self._in_thread(Stage.CONVERT, conversion.convert_if_needed, settings, path, plan.version)
        return Runnable(path, await self.find_interpreter())

    async def find_interpreter(self) -> Path:
        """The interpreter that the engine runs with; what it needs is installed first.

        Raises:
            Problem: the environment could not be built.
        """
        spec = self._engine.environment(await asyncio.to_thread(read_host))
        if spec is None:
            return Path(sys.executable)
        environments = Environments(self._context.settings)
        if found := await asyncio.to_thread(environments.find, spec):
            return found
        size = f"{environments.size(spec) / 1e9:.1f} GB"
        self._begin_stage(Stage.ENVIRONMENT, f"installing {spec.engine} {spec.version} ({size})")
        return await self._in_thread(Stage.ENVIRONMENT, environments.install, spec)

    async def _find_or_fetch(self, launch: ResolvedLaunch) -> Path:
        version, source, hubs = launch.version, launch.origin, self._context.hubs
        if isinstance(source, Path):
            return source
        if found := await asyncio.to_thread(cached_path, hubs, version, source):
            return found
        self._begin_stage(Stage.FETCH, f"fetching {version.version_id} from {source.hub} ({source.model_id})")
        return await self._in_thread(Stage.FETCH, fetch, hubs, version, source)

    async def _in_thread(self, stage: Stage, work: Callable[..., Path], *arguments: object) -> Path:
        """Do long blocking work that reports its progress and can be cancelled."""
        loop, cancelled = asyncio.get_running_loop(), threading.Event()

        def progress(done: int, total: int | None, file: str) -> None:
            loop.call_soon_threadsafe(self._context.events.progress, self._uid, stage, file, done, total)

        job = asyncio.ensure_future(asyncio.to_thread(work, *arguments, progress, cancelled))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            cancelled.set()
            # The thread sees the flag; wait, so that nothing of it goes on after us.
            await asyncio.gather(job, return_exceptions=True)
            raise
        except Problem as problem:
            raise problem.at(stage) from None
