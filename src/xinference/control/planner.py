"""Gathers the facts for planning, and runs the phases of a launch: draft, resolve, size."""

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
from xinference.environments.environments import EnvironmentEntry, Environments
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import Host, read_host
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
from xinference.work_threads import LongWork


class Planner:
    """Gathers the input of the pure functions in `planning`; changes nothing."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        engines: Mapping[str, Engine],
        registrations: Registrations,
        occupancy_of: Callable[[ResolvedLaunch], Occupancy],
        work: LongWork,
    ) -> None:
        self._hubs = hubs
        self._engines = engines
        self._registrations = registrations
        self._occupancy_of = occupancy_of
        self._files = work.files
        self.resolver = ModelResolver(settings, registrations, hubs, work.questions, engines)
        self.hub_chooser = HubChooser(settings, hubs, work.choices)
        self._environments = Environments(settings)
        self._option_tables: dict[str, Mapping[str, str]] = {}
        self._option_lock = asyncio.Lock()

    async def family(self, name: str) -> ModelFamily:
        """The family of a known model's name; for a path or a hub's id, the family derived from the files.

        Raises:
            Problem: 400 ``model_not_found`` with similar names, or any problem of `ModelResolver.resolve`.
        """
        request = (await self.resolver.resolve(LaunchRequest(model_name=name), any_file=True)).request
        return request.family or match(self._registrations.families, request).family

    async def draft(self, request: LaunchRequest, uid: str) -> LaunchDraft:
        """Draft a request whose name is resolved, without access to hubs.

        Raises:
            Problem: 400, the request can't be served on this host.
        """
        return draft_launch(await self.facts(request), request, uid)

    async def resolve(self, draft: LaunchDraft, request: LaunchRequest) -> ResolvedLaunch:
        """Add to the draft of `request` its hub, or the file or folder of its path; reads no header.

        Raises:
            Problem: 400, no hub has the version, or its path is not that of its weights.
        """
        engine, version = self._engines[draft.engine], draft.version
        if request.model_path is None:
            source, why = await self.hub_chooser.choose(version, request.download_hub)
            return resolve_launch(draft, source, why, engine)
        path = await self._files.run(resolve_local, request.model_path, version.spec.model_format, request.quantization)
        return resolve_launch(draft, path, "named by the launch", engine)

    async def size(self, launch: ResolvedLaunch) -> SizedPlan | None:
        """Size a launch within the memory that is not reserved for others; None: its weights are not on disk yet.

        Raises:
            Problem: 400 ``does_not_fit``, ``bad_weight_file``.
        """
        path = await self._files.run(local_path, self._hubs, launch)
        if path is None:
            return None
        engine = self._engines[launch.engine]
        extra = engine.extra_weight_files(launch, path)
        shape, notes = await self._files.run(shape_reader.read_shape, path, launch.version, extra)
        memory = available(await asyncio.to_thread(read_host), self._occupancy_of(launch))
        return size_launch(launch, path, shape, memory, engine.memory, notes)

    async def facts(self, request: LaunchRequest) -> Facts:
        """The facts that planning needs for the request."""
        host = await asyncio.to_thread(read_host)
        known = {}
        if request.options:
            for name, engine in self._engines.items():
                if engine.describe_argv and (request.model_engine or name).lower() == name.lower():
                    known[name] = await self._option_table(name, engine)
        family = request.family
        families = self._registrations.families if family is None else {family.model_name: family}
        environments = await self._files.run(self._environments_of, host)
        return Facts(families, self._engines, host, known, environments)

    def _environments_of(self, host: Host) -> Mapping[str, EnvironmentEntry]:
        """The environment of each engine that has one for this host. Blocks."""
        specs = {name: engine.environment(host) for name, engine in self._engines.items()}
        # The environment of this release is listed before those of other releases with the same versions.
        entries = {entry.spec: entry for entry in reversed(self._environments.entries())}
        return {name: entries[spec] for name, spec in specs.items() if spec in entries}

    async def _option_table(self, name: str, engine: Engine) -> Mapping[str, str]:
        """The options of an engine and their types. The program that lists them runs only once."""
        async with self._option_lock:
            if name not in self._option_tables:
                self._option_tables[name] = await _read_options(name, engine)
            return self._option_tables[name]


async def _read_options(name: str, engine: Engine) -> Mapping[str, str]:
    process = await asyncio.create_subprocess_exec(
        *engine.describe_argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode != 0:
        tail = errors.decode(errors="replace").splitlines()[-40:]
        raise Problem(Code.ENGINE_BROKEN, f"The program that lists the options of {name} fails.", log_tail=tail)
    options: Mapping[str, str] = json.loads(output)["options"]
    return options
