"""The controller: rows say what should run, and it makes that so. Launch, crash and restart are one path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import string
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from xinference.catalog.match import match, near
from xinference.catalog.models import LaunchRequest, ModelFamily
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control import cache, names, progress, weights
from xinference.control.admission import Admission
from xinference.control.broken import BrokenDeployment
from xinference.control.deployment import Deployment
from xinference.control.describe import listing_entry
from xinference.control.downloads import Downloads
from xinference.control.events import Events, final_event
from xinference.control.meaning import Meaning
from xinference.control.on_demand import OnDemand
from xinference.control.registrations import Registrations
from xinference.control.routing import Route, RoutingTable, with_adapters
from xinference.control.sources import Sources
from xinference.control.stages import Surroundings
from xinference.control.state import Ending
from xinference.engines import all_engines, lora
from xinference.engines.base import Engine
from xinference.errors import Problem, bad_request, not_found
from xinference.hardware.devices import read_host
from xinference.hubs import all_hubs
from xinference.hubs.base import Hub
from xinference.hubs.local import resolve_local
from xinference.planning.launch_plan import LaunchPlan
from xinference.planning.plan import ChooseSource, Facts, check_request, choose_version, make_plan, supporting_engine
from xinference.store.database import DeploymentRow, Store

log = logging.getLogger(__name__)


class Controller:
    """Owns the deployments. The gateway reads `table`; the management API calls the rest."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._events = Events(store)
        self._hubs: Mapping[str, Hub] = all_hubs(settings)
        self.registrations = Registrations(settings.home, builtin_families())
        self._meaning = Meaning(settings, self.registrations, self._hubs)
        self._sources = Sources(settings, self._hubs)
        self.downloads = Downloads(self._hubs, self._events)
        self.engines: Mapping[str, Engine] = all_engines()
        self._option_tables: dict[str, Mapping[str, str]] = {}
        self._asking = asyncio.Lock()
        self._deployments: dict[str, Deployment | BrokenDeployment] = {}
        self._reserved: set[str] = set()
        self._table = RoutingTable()
        self._changes = asyncio.Event()
        self.admission = Admission(settings, store, self._taken_up)
        self._around = Surroundings(
            settings, store, self._events, self._hubs, self.engines, self._publish, self.admission
        )
        self._watching: asyncio.Task[None] | None = None

    # -- the data path's view -------------------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        return self._table

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """See `Router.ensure_ready`."""
        route = self._table.routes.get(uid)
        deployment = self._deployments.get((route.parent or uid) if route else uid)
        demand = deployment.on_demand if isinstance(deployment, Deployment) else None
        with demand.wait(uid) if demand else contextlib.nullcontext():
            return await self._until_ready(uid, time.monotonic() + deadline, demand)

    async def _until_ready(self, uid: str, end: float, demand: OnDemand | None) -> Route:
        refusals = demand.refusals if demand else 0
        while True:
            route = self._table.routes.get(uid)
            if route is None:
                raise self._unknown(uid)
            if route.targets:
                return route
            if demand is not None:
                if demand.refusals != refusals and demand.refused is not None:
                    raise demand.refused
                demand.ask()
            left = end - time.monotonic()
            if route.problem is not None or left <= 0:
                raise route.problem or Problem(
                    "model_loading", 503, f"The model {uid} is not ready yet (stage {route.stage}).", stage=route.stage
                )
            try:
                await asyncio.wait_for(self._changes.wait(), left)
            except TimeoutError:
                continue

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up every row: adopt what still runs, start what should, finish what was being terminated."""
        self.registrations.load()
        await asyncio.gather(*(self._take_up_or_show(row) for row in self._store.deployments()))
        self._watching = asyncio.create_task(self.admission.watch(), name="admission")

    async def close(self, how: Ending) -> None:
        """End the tasks; ``stop`` ends the engines too, ``detach`` leaves them for the next server."""
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.gather(self.downloads.close(), *(d.end(how) for d in self._deployments.values()))

    async def _take_up_or_show(self, row: DeploymentRow) -> None:
        try:
            await self._take_up(row)
        except Problem as problem:
            log.error("deployment %s is not taken up: %s", row.uid, problem)
            self._deployments[row.uid] = BrokenDeployment(row.uid, problem, row.created)
            self._publish()

    async def _take_up(self, row: DeploymentRow) -> None:
        try:
            request = msgspec.json.decode(row.request, type=LaunchRequest)
        except msgspec.DecodeError as error:
            raise Problem(
                "unreadable_row",
                500,
                f"The stored request of {row.uid} can't be read: {error}.",
                hint="Launch it again.",
            ) from None
        # Not sized: what runs already takes the memory that it would be measured against.
        plan = await self._make_plan(request, row.uid, sized=False)
        deployment = Deployment(plan, self._around, row.created, row.problem)
        if not row.wanted:
            await deployment.finish_termination()
            self._store.remove_deployment(row.uid)
            return
        self._deployments[row.uid] = deployment
        deployment.begin()
        self._publish()

    # -- what users ask -------------------------------------------------------------------------------------

    async def plan(self, request: LaunchRequest) -> LaunchPlan:
        """What a launch would do; nothing is changed."""
        found = await self._meaning.of(request)
        plan = await self._new_plan(found.request, self._uid_for(found.request))
        return replace(plan, reasons=(*found.reasons, *plan.reasons))

    async def launch(self, request: LaunchRequest, *, remarks: Iterable[str] = ()) -> str:
        """Write the row and begin; the answer is the uid. `remarks` become warnings among its events.

        Asking again for what runs already under the same explicit uid changes nothing and is not an error.

        Raises:
            Problem: 400 what can't be, 409 a uid that is taken by something else.
        """
        running = self._deployments.get((request.model_uid or "").strip())
        found = await self._meaning.of(request, running.plan.request if isinstance(running, Deployment) else None)
        request, uid = found.request, self._uid_for(found.request)
        self._reserved.add(uid)
        try:
            existing = self._deployments.get(uid)
            if isinstance(existing, Deployment) and existing.problem is None:
                if existing.plan.request == (await self._make_plan(request, uid, sized=False)).request:
                    return uid
                raise Problem(
                    "model_uid_taken",
                    409,
                    f"The model UID {uid} is taken by {existing.plan.version.version_id}.",
                    hint=f"Choose another --model-uid, or `xinference terminate --model-uid {uid}` first.",
                )
            plan = await self._new_plan(request, uid)
            plan = replace(plan, reasons=(*found.reasons, *plan.reasons))
            if existing is not None:
                await self.terminate(uid)
            self._store.add_deployment(uid, msgspec.json.encode(plan.request).decode())
            deployment = Deployment(plan, self._around, time.time())
            self._deployments[uid] = deployment
            for remark in remarks:
                self._events.add(uid, "WARNING", "plan", remark)
            deployment.begin()
            self._publish()
            return uid
        finally:
            self._reserved.discard(uid)

    async def terminate(self, uid: str) -> None:
        """End a deployment and forget it; it is gone when this returns.

        Raises:
            Problem: 404, with the models there are.
        """
        deployment = self.deployment(uid)
        self._store.set_unwanted(uid)
        await deployment.end("terminate")
        self._events.add(uid, "TERMINATED", "stop", "terminated")
        if self._deployments.get(uid) is deployment:
            del self._deployments[uid]
        self._store.remove_deployment(uid)
        self._publish()

    async def cancel(self, uid: str) -> None:
        """End a launch that is on its way; whoever waits for it is told.

        Raises:
            Problem: 404, or 409 ``not_launching``: it answers already, or has failed.
        """
        deployment = self.deployment(uid)
        if not deployment.launching:
            state = "failed" if deployment.problem else "ready"
            hint = f"`xinference terminate --model-uid {uid}` ends it."
            raise Problem("not_launching", 409, f"{uid} is not being launched: it is {state}.", hint=hint)
        await self.terminate(uid)

    def progress(self, uid: str) -> dict[str, Any]:
        """How far a launch is; of an unknown uid, nothing."""
        found = self._deployments.get(uid)
        return progress.unknown() if found is None else found.progress

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid.

        Raises:
            Problem: 404, with the models there are.
        """
        found = self._deployments.get(uid)
        if found is None:
            raise self._unknown(uid)
        return found

    def running(self, uid: str) -> Deployment:
        """One deployment that was taken up.

        Raises:
            Problem: 404, or why it could not be taken up.
        """
        found = self.deployment(uid)
        if isinstance(found, BrokenDeployment):
            raise found.problem
        return found

    def deployments(self) -> list[Deployment | BrokenDeployment]:
        """All of them, oldest first."""
        return sorted(self._deployments.values(), key=lambda d: d.created)

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """Every family that can be launched by its name."""
        return self.registrations.families

    def users_of(self, family: str) -> list[str]:
        """The deployments of a family, also those that have failed."""
        every = self._deployments.items()
        return [uid for uid, d in every if isinstance(d, Deployment) and d.plan.version.family.model_name == family]

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The kept events of a deployment, oldest first."""
        self.deployment(uid)
        return self._events.kept(uid)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until it is ready, has failed or is gone."""
        return self._follow(self.deployment(uid), uid)

    # -- caches ---------------------------------------------------------------------------------------------

    def cached(self, families: Iterable[ModelFamily] | None = None) -> list[cache.CachedVersion]:
        """What is in the caches of these families, or of all. Blocks; opens no connection."""
        every = (*self.families.values(), *self._meaning.kept_families()) if families is None else families
        return cache.cached_versions(every, self._hubs, self._settings)

    def complete_versions(self, families: Iterable[ModelFamily]) -> set[str]:
        """The ids of those versions of the families whose weights are all here. Blocks; opens no connection."""
        return {
            version.version_id
            for version in cache.versions_of(families)
            if any(
                weights.cached_path(self._hubs, version, s) for s in version.spec.sources if s.has(version.quantization)
            )
        }

    async def remove_cached(self, version_id: str) -> int:
        """Delete a version's files; returns the bytes that this frees. Raises `Problem`, see `cache.remove`."""
        found = await asyncio.to_thread(self.cached)
        uses = [*self._uses(), *(cache.Use(f"the download of {v}", v, None) for v in self.downloads.running)]
        return await asyncio.to_thread(cache.remove, found, version_id, self._hubs, uses)

    async def family(self, name: str) -> ModelFamily:
        """What a name means: a known model, or a path or hub's id that is looked at.

        Raises:
            Problem: 400 ``model_not_found`` with the near ones; see `Meaning.of`.
        """
        request = (await self._meaning.of(LaunchRequest(model_name=name), any_file=True)).request
        return request.family or match(self.families, request).family

    async def download(self, request: LaunchRequest) -> str:
        """Begin to fetch a version without launching it; the answer is its version id, `downloads` knows the rest.

        Raises:
            Problem: 400 what can't be, 409 ``download_running`` from another hub.
        """
        request = (await self._meaning.of(request)).request
        facts = await self._facts(request)
        version = match(facts.families, request)
        if request.model_engine is not None:
            supporting_engine(facts, version, request.model_engine)
        choose = await self._sources.chooser(version, request.download_hub)
        return self.downloads.begin(version, *choose(version, request.download_hub))

    def _uses(self) -> Iterator[cache.Use]:
        for uid, deployment in self._deployments.items():
            if isinstance(deployment, Deployment) and deployment.problem is None:
                plan = deployment.plan
                yield cache.Use(f"the model {uid}", plan.version.version_id if plan.source else None, plan.path)

    # -- within ---------------------------------------------------------------------------------------------

    async def _follow(self, deployment: Deployment | BrokenDeployment, uid: str) -> AsyncIterator[dict[str, Any]]:
        # Looked at when the following begins: what ended since it was asked for would never be told.
        settled: dict[str, Any] | None = None
        if deployment.problem is not None:
            settled = final_event("FAILED", deployment.problem.cause) | {"problem": deployment.problem.to_dict()}
        elif deployment.ready or deployment.status == "UNLOADED":
            settled = final_event("READY", "ready") | {"model": deployment.description}
        async for event in self._events.follow(uid, settled):
            yield event

    async def _new_plan(self, request: LaunchRequest, uid: str) -> LaunchPlan:
        """A plan that can be launched beside what there is."""
        plan = await self._make_plan(request, uid)
        await asyncio.to_thread(names.check_adapters, plan.version.family.model_type, lora.modules_of(plan))
        adapters = self.engines[plan.engine].lora_names(plan)
        names.check_free(uid, adapters, self._table.routes, self._reserved)
        return plan

    async def _make_plan(self, request: LaunchRequest, uid: str, *, sized: bool = True) -> LaunchPlan:
        facts = await self._facts(request)
        check_request(facts, request)
        version, _, _ = choose_version(facts, request)
        choose: ChooseSource = self._sources.choose
        if request.model_path is not None:
            path: Path | None = await asyncio.to_thread(
                resolve_local, request.model_path, version.spec.model_format, request.quantization
            )
        else:
            choose = await self._sources.chooser(version, request.download_hub)
            path = weights.cached_path(self._hubs, version, choose(version, request.download_hub)[0])
        if path is None or not sized:
            return make_plan(facts, request, uid, choose_source=choose, path=path)
        shape, told = await asyncio.to_thread(weights.look_at, path, version)
        return make_plan(facts, request, uid, choose_source=choose, path=path, shape=shape, told=told)

    async def _facts(self, request: LaunchRequest) -> Facts:
        host = await asyncio.to_thread(read_host)
        known = {}
        if request.options:
            for name, engine in self.engines.items():
                if engine.describe_argv and (request.model_engine or name).lower() == name.lower():
                    known[name] = await self._option_table(name, engine)
        family = request.family
        families = self.families if family is None else {family.model_name: family}
        return Facts(families, self.engines, host, known, self.admission.beside_those_that_stay)

    def _taken_up(self) -> list[Deployment]:
        return [deployment for deployment in self._deployments.values() if isinstance(deployment, Deployment)]

    async def _option_table(self, name: str, engine: Engine) -> Mapping[str, str]:
        """The options an engine knows, asked of the engine itself, once."""
        async with self._asking:
            return await self._ask_for_options(name, engine)

    async def _ask_for_options(self, name: str, engine: Engine) -> Mapping[str, str]:
        if name not in self._option_tables:
            process = await asyncio.create_subprocess_exec(
                *engine.describe_argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            output, errors = await process.communicate()
            if process.returncode != 0:
                tail = errors.decode(errors="replace").splitlines()[-40:]
                raise Problem("engine_broken", 503, f"{name} can't be asked for its options.", log_tail=tail)
            self._option_tables[name] = json.loads(output)["options"]
        return self._option_tables[name]

    def _uid_for(self, request: LaunchRequest) -> str:
        if request.model_uid is not None:
            uid = request.model_uid.strip()
            if not names.is_valid(uid):
                raise bad_request(f"The model UID {request.model_uid!r} is invalid.", hint=names.FORM)
            if uid in self._reserved:
                raise Problem("model_uid_taken", 409, f"The model UID {uid} is being launched just now.")
            return uid
        name = request.model_name.strip()
        taken = self._deployments.keys() | self._table.routes.keys() | self._reserved
        if name not in taken:
            return name
        alphabet = string.ascii_lowercase + string.digits
        while (uid := f"{name}-{''.join(secrets.choice(alphabet) for _ in range(8))}") in taken:
            pass
        return uid

    def _unknown(self, uid: str) -> Problem:
        close = near(uid, self._deployments)
        there = ", ".join(self._deployments) or "none"
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Running models: {there}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code="model_not_found")

    def _publish(self) -> None:
        """Make a new routing table; the gateway sees it at its next request."""
        routes = with_adapters({uid: deployment.route for uid, deployment in self._deployments.items()})
        data = [
            listing_entry(name, r.description) for name, r in routes.items() if r.targets or r.recovering or r.on_demand
        ]
        listing = msgspec.json.encode({"object": "list", "data": data})
        self._table = RoutingTable(MappingProxyType(routes), listing)
        self._changes.set()
        self._changes = asyncio.Event()
