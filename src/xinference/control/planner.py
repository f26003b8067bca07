"""What a request for a launch comes to: what its name means, what is known of this host, and the plan that follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path

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
from xinference.launch.plan import LaunchPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.engine_choice import choose_version
from xinference.planning.facts import Facts
from xinference.planning.occupancy import Occupancy
from xinference.planning.plan import ChooseSource, check_request, make_plan
from xinference.weights import shape_reader
from xinference.weights.fetch import cached_path


class Planner:
    """Gathers what the pure plan needs; changes nothing."""

    def __init__(
        self,
        settings: Settings,
        hubs: Mapping[str, Hub],
        engines: Mapping[str, Engine],
        registrations: Registrations,
        beside: Callable[[LaunchPlan], Occupancy],
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

    async def make(self, request: LaunchRequest, uid: str, *, sized: bool = True) -> LaunchPlan:
        """The plan of a request whose name's meaning is known; without a size if its weights are not here.

        Raises:
            Problem: 400 what can't be.
        """
        facts = await self.facts(request)
        check_request(facts, request)
        version, _, _ = choose_version(facts, request)
        choose: ChooseSource = self.sources.choose
        if request.model_path is not None:
            path: Path | None = await asyncio.to_thread(
                resolve_local, request.model_path, version.spec.model_format, request.quantization
            )
        else:
            choose = await self.sources.chooser(version, request.download_hub)
            source = make_plan(facts, request, uid, choose_source=choose).source
            path = cached_path(self._hubs, version, source) if source else None
        plan = make_plan(facts, request, uid, choose_source=choose, path=path)
        if path is None or not sized:
            return plan
        extra = self._engines[plan.engine].extra_weight_files(plan, path)
        shape, told = await asyncio.to_thread(shape_reader.read_shape, path, version, extra)
        return make_plan(facts, request, uid, choose_source=choose, path=path, shape=shape, told=told)

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
        return Facts(families, self._engines, host, known, self._beside)

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
