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
    """Weights on this machine, with the inputs of sizing: the shape of the model and the host."""

    path: Path
    shape: ModelShape
    notes: tuple[str, ...]
    """Notes for the user from reading the header."""
    host: Host


@dataclass(frozen=True)
class Runnable:
    """The inputs of an engine's start."""

    path: Path
    """Weights in a format that the engine loads."""
    python: Path
    """The Python interpreter of the engine's environment."""


class Preparation:
    """The preparation steps of one deployment. Each step reports its begin and its progress, and can be cancelled.

    It does not change the deployment: `begin_stage` and the results of the steps are sent to the owner.
    """

    def __init__(
        self, context: DeploymentContext, uid: str, engine: Engine, begin_stage: Callable[[Stage, str | None], None]
    ) -> None:
        self._context = context
        self._uid = uid
        self._engine = engine
        self._begin_stage = begin_stage

    async def read_weights(self, launch: ResolvedLaunch, path: Path | None = None) -> Weights:
        """Fetch the weights of a launch, unless they are cached or `path` names them, and read their header.

        Raises:
            Problem: the weights cannot be fetched or read, or cannot answer the requests of the model's type.
        """
        path = path or await self._find_or_fetch(launch)
        extra = self._engine.extra_weight_files(launch, path)
        shape, notes = await self._context.work.files.run(shape_reader.read_shape, path, launch.version, extra)
        host = await asyncio.to_thread(read_host)
        self._engine.check_weights(launch, shape)
        self._engine.check_packing(launch, shape, host)
        return Weights(path, shape, notes, host)

    async def make_runnable(self, plan: SizedPlan) -> Runnable:
        """Convert the weights if the engine cannot load their format, and install the engine's environment.

        Raises:
            Problem: the conversion or the installation failed.
        """
        path = plan.path
        if plan.version.spec.model_format == "ggmlv3":
            self._begin_stage(Stage.CONVERT, None)
            settings = self._context.settings
            path = await self._in_thread(Stage.CONVERT, conversion.convert_if_needed, settings, path, plan.version)
        return Runnable(path, await self.find_interpreter())

    async def find_interpreter(self) -> Path:
        """The interpreter of the engine's environment, which is installed if it is missing.

        Raises:
            Problem: the environment cannot be installed.
        """
        spec = self._engine.environment(await asyncio.to_thread(read_host))
        if spec is None:
            return Path(sys.executable)
        environments = Environments(self._context.settings)
        if python := await self._context.work.files.run(environments.find, spec):
            return python
        size = f"{environments.size(spec) / 1e9:.1f} GB"
        self._begin_stage(Stage.ENVIRONMENT, f"installing {spec.engine} {spec.version} ({size})")
        return await self._in_thread(Stage.ENVIRONMENT, environments.install, spec)

    async def _find_or_fetch(self, launch: ResolvedLaunch) -> Path:
        version, source, hubs = launch.version, launch.origin, self._context.hubs
        if isinstance(source, Path):
            return source
        if path := await self._context.work.files.run(cached_path, hubs, version, source):
            return path
        self._begin_stage(Stage.FETCH, f"fetching {version.version_id} from {source.hub} ({source.model_id})")
        return await self._in_thread(Stage.FETCH, fetch, hubs, version, source)

    async def _in_thread(self, stage: Stage, work: Callable[..., Path], *arguments: object) -> Path:
        """Run long blocking work in a thread, with its progress and cancellation."""
        loop, cancelled = asyncio.get_running_loop(), threading.Event()

        def progress(done: int, total: int | None, file: str) -> None:
            loop.call_soon_threadsafe(self._context.events.progress, self._uid, stage, file, done, total)

        threads = self._context.work.transfers if stage is Stage.FETCH else self._context.work.builds
        job = asyncio.ensure_future(threads.run(work, *arguments, progress, cancelled, cancelled=cancelled))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            cancelled.set()
            # The thread reads the flag. Wait for its end, so that it does not outlive this task.
            await asyncio.gather(job, return_exceptions=True)
            raise
        except Problem as problem:
            raise problem.at(stage) from None
