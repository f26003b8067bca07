"""Gathers the facts for planning and takes a launch from phase to phase: draft, resolve, size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.config import Settings
from xinference.control.hub_choice import HubChooser
from xinference.control.resolver import ModelResolver
from xinference.engines.base import Engine
from xinference.errors import Problem
from xinference.hardware.devices import read_host
from xinference.hubs.base import Hub
from xinference.hubs.local_files import resolve_local
from xinference.launch.match import match
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.facts import Facts
from xinference.planning.occupancy import Occupancy, available
from xinference.planning.plan import draft_launch, resolve_launch
from xinference.planning.sizing import size_launch
from xinference.weights import shape_reader
from xinference.weights.fetch import local_path


class Planner:
    """Gathers what the pure functions of planning need; changes nothing."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        engines: Mapping[str, Engine],
        registrations: Registrations,
        beside: Callable[[ResolvedLaunch], Occupancy],
    ) -> None:
        self._hubs = hubs
        self._engines = engines
        self._registrations = registrations
        self._beside = beside
        self.meaning = ModelResolver(settings, registrations, hubs)
        self.sources = HubChooser(settings, hubs)
        self._option_tables: dict[str, Mapping[str, str]] = {}
        self._asking = asyncio.Lock()

    async def family(self, name: str) -> ModelFamily:
        """What a name means: a known model, or a path or hub's id that is looked at.

        Raises:
            Problem: 400 ``model_not_found`` with the near ones; see `Meaning.of`.
        """
        request = (await self.meaning.of(LaunchRequest(model_name=name), any_file=True)).request
        return request.family or match(self._registrations.families, request).family

    async def draft(self, request: LaunchRequest, uid: str) -> LaunchDraft:
        """What follows from a request whose name is resolved; no hub is asked.

        Raises:
            Problem: 400 what can't be.
        """
        return draft_launch(await self.facts(request), request, uid)

    async def resolve(self, draft: LaunchDraft, request: LaunchRequest) -> ResolvedLaunch:
        """The draft of `request` with its hub, or with the file or folder that the user gave; no header is read.

        Raises:
            Problem: 400 what can't be.
        """
        engine, version = self._engines[draft.engine], draft.version
        if request.model_path is None:
            source, why = await self.sources.choose(version, request.download_hub)
            return resolve_launch(draft, source, why, engine)
        path = await asyncio.to_thread(
            resolve_local, request.model_path, version.spec.model_format, request.quantization
        )
        return resolve_launch(draft, path, "given with --model-path", engine)

    async def size(self, launch: ResolvedLaunch) -> SizedPlan | None:
        """The plan of a launch beside what there is; None: its weights are not here yet.

        Raises:
            Problem: 400 ``does_not_fit``, ``bad_weight_file``.
        """
        path = await asyncio.to_thread(local_path, self._hubs, launch)
        if path is None:
            return None
        engine = self._engines[launch.engine]
        extra = engine.extra_weight_files(launch, path)
        shape, notes = await asyncio.to_thread(shape_reader.read_shape, path, launch.version, extra)
        there = available(await asyncio.to_thread(read_host), self._beside(launch))
        return size_launch(launch, path, shape, there, engine.memory, notes)

    async def facts(self, request: LaunchRequest) -> Facts:
        """What is known, as far as it concerns the request."""
        host = await asyncio.to_thread(read_host)
        known = {}
        if request.options:
            for name, engine in self._engines.items():
                if engine.describe_argv and (request.model_engine or name).lower() == name.lower():
                    known[name] = await self._option_table(name, engine)
        family = request.family
        families = self._registrations.families if family is None else {family.model_name: family}
        return Facts(families, self._engines, host, known)

    async def _option_table(self, name: str, engine: Engine) -> Mapping[str, str]:
        """The options an engine knows, asked of the engine itself, once."""
        async with self._asking:
            if name not in self._option_tables:
                self._option_tables[name] = await _ask_for_options(name, engine)
            return self._option_tables[name]


async def _ask_for_options(name: str, engine: Engine) -> Mapping[str, str]:
    process = await asyncio.create_subprocess_exec(
        *engine.describe_argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        tail = errors.decode(errors="replace").splitlines()[-40:]
        raise Problem("engine_broken", 503, f"{name} can't be asked for its options.", log_tail=tail)
    options: Mapping[str, str] = json.loads(output)["options"]
    return options
