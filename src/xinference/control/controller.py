"""The controller: takes up every stored row, launches, terminates and lists deployments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from xinference.catalog.models import ModelFamily
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control import model_names
from xinference.control.downloads import Downloads
from xinference.control.planner import Planner
from xinference.control.publisher import Publisher
from xinference.control.weights_store import WeightsStore
from xinference.deployments import progress
from xinference.deployments.admission import Admission
from xinference.deployments.context import DeploymentContext, Ending
from xinference.deployments.deployment import BrokenDeployment, Deployment
from xinference.deployments.snapshot import Status
from xinference.deployments.views import listing_entry
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem, near, not_found
from xinference.hubs.base import Hub
from xinference.hubs.registry import all_hubs
from xinference.launch.plan import LaunchDraft, LaunchPlan, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.plan import is_same_launch
from xinference.routing.interfaces import NoLoad, ReplicaLoad
from xinference.routing.table import Route, RoutingTable
from xinference.store.database import DeploymentRow, Store
from xinference.store.event_log import EventLog, final_event
from xinference.weights import cache
from xinference.weights.derivation import DerivedRequest

log = logging.getLogger(__name__)


class Controller:
    """Owns the deployments. The gateway reads `table`; the management API calls the rest."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        load: ReplicaLoad | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        """`load` counts the requests at each replica; None: there is no gateway."""
        load = load or NoLoad()
        self._store = store
        self._events = EventLog(store)
        self._hubs: Mapping[str, Hub] = all_hubs(settings)
        self.registrations = Registrations(settings.home, builtin_families())
        self.downloads = Downloads(self._hubs, self._events)
        self.engines: Mapping[str, Engine] = all_engines()
        self._deployments: dict[str, Deployment | BrokenDeployment] = {}
        self._reserved: set[str] = set()
        self._publisher = publisher or Publisher()
        self._admission = Admission(settings, store, load, self._taken_up)
        self._context = DeploymentContext(
            settings, store, self._events, self._hubs, self.engines, self._publish, load, self._admission
        )
        self.planner = Planner(settings, self._hubs, self.engines, self.registrations, self._admission.occupancy_for)
        self.library = WeightsStore(settings, self._hubs, self.registrations, self.planner, self.downloads, self._uses)
        self._admitting: asyncio.Task[None] | None = None

    # -- the data path's view -------------------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        return self._publisher.table

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        """See `Router.ensure_ready`."""
        route = self.table.routes.get(uid)
        found = self._deployments.get((route.parent or uid) if route else uid)
        deployment = found if isinstance(found, Deployment) else None
        with deployment.wait(uid) if deployment else contextlib.nullcontext():
            return await self._publisher.until_ready(uid, time.monotonic() + deadline, deployment, self._unknown)

    # -- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up every row: adopt what still runs, start what should, finish what was being terminated."""
        self.registrations.load()
        await asyncio.gather(*(self._take_up_or_show(row) for row in self._store.deployments()))
        self._admitting = asyncio.create_task(self._admission.run(), name="admission")

    async def close(self, how: Ending) -> None:
        """End the tasks; ``stop`` ends the engines too, ``detach`` leaves them for the next server."""
        if self._admitting is not None:
            self._admitting.cancel()
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
                Code.UNREADABLE_ROW,
                f"The stored request of {row.uid} can't be read: {error}.",
                hint="Launch it again.",
            ) from None
        # Not sized: what runs already takes the memory that it would be measured against.
        launch = await self.planner.resolve(await self.planner.draft(request, row.uid), request)
        deployment = Deployment(launch, self._context, row.created, row.problem)
        if not row.wanted:
            await deployment.end("terminate")
            self._store.remove_deployment(row.uid)
            return
        self._deployments[row.uid] = deployment
        adopted = deployment.begin()
        self._publish()
        await adopted  # a server that answers tells of everything that runs

    # -- what users ask -------------------------------------------------------------------------------------

    async def plan(self, request: LaunchRequest) -> tuple[ResolvedLaunch, SizedPlan | None]:
        """What a launch would do, with its size if the weights are here; nothing is changed."""
        found = await self.planner.resolver.resolve(request)
        draft = await self._draft(found, self._uid_for(found.request))
        return await self._resolve(draft, found.request)

    async def launch(self, request: LaunchRequest, *, remarks: Iterable[str] = ()) -> str:
        """Write the row and begin; the answer is the uid. `remarks` become warnings among its events.

        Asking again for what runs already under the same explicit uid changes nothing and is not an error.

        Raises:
            Problem: 400 what can't be, 409 a uid that is taken by something else.
        """
        running = self._deployments.get((request.model_uid or "").strip())
        found = await self.planner.resolver.resolve(
            request, running.plan.request if isinstance(running, Deployment) else None
        )
        request, uid = found.request, self._uid_for(found.request)
        self._reserved.add(uid)
        try:
            draft = await self._draft(found, uid)
            existing = self._deployments.get(uid)
            if isinstance(existing, Deployment) and existing.problem is None:
                if is_same_launch(draft, existing.plan.request):
                    return uid
                raise Problem(
                    Code.MODEL_UID_TAKEN,
                    f"The model UID {uid} is taken by {existing.plan.version.version_id}.",
                    hint=f"Choose another --model-uid, or `xinference terminate --model-uid {uid}` first.",
                )
            launch, sized = await self._resolve(draft, request)
            if existing is not None:
                await self.terminate(uid)
            self._store.add_deployment(uid, msgspec.json.encode(launch.request).decode())
            deployment = Deployment(sized or launch, self._context, time.time())
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
        """Cancel a launch that is not ready; each client that waits for it gets the error.

        Raises:
            Problem: 404, or 409 ``not_launching``: it answers already, or has failed.
        """
        deployment = self.deployment(uid)
        if not deployment.launching:
            state = "failed" if deployment.problem else "ready"
            hint = f"`xinference terminate --model-uid {uid}` ends it."
            raise Problem(Code.NOT_LAUNCHING, f"{uid} is not being launched: it is {state}.", hint=hint)
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
        return self._events.stored(uid)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until it is ready, has failed or is gone."""
        return self._follow(self.deployment(uid), uid)

    # -- within ---------------------------------------------------------------------------------------------

    async def _follow(self, deployment: Deployment | BrokenDeployment, uid: str) -> AsyncIterator[dict[str, Any]]:
        # Looked at when the following begins: what ended since it was asked for would never be told.
        settled: dict[str, Any] | None = None
        if deployment.problem is not None:
            settled = final_event("FAILED", deployment.problem.cause) | {"problem": deployment.problem.to_dict()}
        elif deployment.ready or deployment.status is Status.UNLOADED:
            settled = final_event("READY", "ready") | {"model": deployment.description}
        async for event in self._events.follow(uid, settled):
            yield event

    async def _draft(self, derived: DerivedRequest, uid: str) -> LaunchDraft:
        """The draft of a derived request, with the reasons of both."""
        draft = await self.planner.draft(derived.request, uid)
        return replace(draft, reasons=(*derived.reasons, *draft.reasons))

    async def _resolve(self, draft: LaunchDraft, request: LaunchRequest) -> tuple[ResolvedLaunch, SizedPlan | None]:
        """The resolved launch, and its sized plan if the weights are on this machine."""
        launch = await self.planner.resolve(draft, request)
        engine, model_type = self.engines[launch.engine], launch.version.family.model_type
        await asyncio.to_thread(model_names.check_adapters, model_type, engine.adapters(launch))
        model_names.check_free(launch.uid, engine.lora_names(launch), self.table.routes, self._reserved)
        return launch, await self.planner.size(launch)

    def _uses(self) -> Iterator[cache.CacheUse]:
        for uid, deployment in self._deployments.items():
            if isinstance(deployment, Deployment) and deployment.problem is None:
                plan = deployment.plan
                version_id = plan.version.version_id if plan.source else None
                yield cache.CacheUse(f"the model {uid}", version_id, _known_path(plan))

    def _taken_up(self) -> list[Deployment]:
        return [deployment for deployment in self._deployments.values() if isinstance(deployment, Deployment)]

    def _uid_for(self, request: LaunchRequest) -> str:
        taken = self._deployments.keys() | self.table.routes.keys()
        return model_names.uid_for(request, taken, self._reserved)

    def _unknown(self, uid: str) -> Problem:
        close = near(uid, self._deployments)
        there = ", ".join(self._deployments) or "none"
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Running models: {there}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code=Code.MODEL_NOT_FOUND)

    def _publish(self) -> None:
        deployments = self._deployments.values()
        self._publisher.publish((each.route, listing_entry(each.uid, each.description)) for each in deployments)


def _known_path(plan: LaunchPlan) -> Path | None:
    """Where the weights of a launch are; None: they are on their way."""
    if isinstance(plan, SizedPlan):
        return plan.path
    return plan.origin if isinstance(plan.origin, Path) else None
