"""The controller: restores the stored deployments, and launches, terminates and lists deployments."""

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
    """Owns the deployments. Implements `Router` for the gateway; the management API calls the other methods."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        load: ReplicaLoad | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        """`load` counts the requests in flight at each replica; None: there is no gateway."""
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
        self._admission = Admission(settings, store, load, self._working_deployments)
        self._context = DeploymentContext(
            settings, store, self._events, self._hubs, self.engines, self._publish, load, self._admission
        )
        self.planner = Planner(settings, self._hubs, self.engines, self.registrations, self._admission.occupancy_for)
        self.weights = WeightsStore(
            settings, self._hubs, self.registrations, self.planner, self.downloads, self._cache_uses
        )
        self._admission_task: asyncio.Task[None] | None = None

    # -- for the gateway ------------------------------------------------------------------------------------

    @property
    def table(self) -> RoutingTable:
        return self._publisher.table

    async def ensure_ready(self, uid: str, deadline: float) -> Route:
        route = self.table.routes.get(uid)
        existing = self._deployments.get((route.parent or uid) if route else uid)
        deployment = existing if isinstance(existing, Deployment) else None
        with deployment.wait(uid) if deployment else contextlib.nullcontext():
            return await self._publisher.wait_until_ready(uid, time.monotonic() + deadline, deployment, self._not_found)

    # -- start and end --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Restore the stored deployments: adopt running engines, start missing ones, and complete terminations."""
        self.registrations.load()
        await asyncio.gather(*(self._restore_or_report(row) for row in self._store.deployments()))
        self._admission_task = asyncio.create_task(self._admission.run(), name="admission")

    async def close(self, how: Ending) -> None:
        """End all tasks; ``stop`` also stops the engines, ``detach`` lets them run on for the next server."""
        if self._admission_task is not None:
            self._admission_task.cancel()
        await asyncio.gather(self.downloads.close(), *(d.end(how) for d in self._deployments.values()))

    async def _restore_or_report(self, row: DeploymentRow) -> None:
        try:
            await self._restore(row)
        except Problem as problem:
            log.error("deployment %s cannot be restored: %s", row.uid, problem)
            self._deployments[row.uid] = BrokenDeployment(row.uid, problem, row.created)
            self._publish()

    async def _restore(self, row: DeploymentRow) -> None:
        try:
            request = msgspec.json.decode(row.request, type=LaunchRequest)
        except msgspec.DecodeError as error:
            raise Problem(
                Code.UNREADABLE_ROW,
                f"The stored request of {row.uid} can't be read: {error}.",
                hint="Launch it again.",
            ) from None
        # Not sized here: an engine that still runs uses the memory that sizing would measure as free.
        launch = await self.planner.resolve(await self.planner.draft(request, row.uid), request)
        deployment = Deployment(launch, self._context, row.created, row.problem)
        if not row.wanted:
            await deployment.end("terminate")
            self._store.remove_deployment(row.uid)
            return
        self._deployments[row.uid] = deployment
        adopted = deployment.begin()
        self._publish()
        await adopted  # before the server answers requests, so that its answers include every running engine

    # -- for the management API -----------------------------------------------------------------------------

    async def plan(self, request: LaunchRequest) -> tuple[ResolvedLaunch, SizedPlan | None]:
        """Plan a launch without starting it; the plan has a size if the weights are on this machine.

        Raises:
            Problem: 400, the request can't be served.
        """
        derived = await self.planner.resolver.resolve(request)
        draft = await self._draft(derived, self._uid_for(derived.request))
        return await self._resolve(draft, derived.request)

    async def launch(self, request: LaunchRequest, *, warnings: Iterable[str] = ()) -> str:
        """Store a deployment and start it; returns its uid. `warnings` are added to its events.

        A repeated launch with the same explicit uid and the same request changes nothing and is not an error.

        Raises:
            Problem: 400, the request can't be served; 409, the uid is taken by another launch.
        """
        running = self._deployments.get((request.model_uid or "").strip())
        derived = await self.planner.resolver.resolve(
            request, running.plan.request if isinstance(running, Deployment) else None
        )
        request, uid = derived.request, self._uid_for(derived.request)
        self._reserved.add(uid)
        try:
            draft = await self._draft(derived, uid)
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
            for warning in warnings:
                self._events.add(uid, "WARNING", "plan", warning)
            deployment.begin()
            self._publish()
            return uid
        finally:
            self._reserved.discard(uid)

    async def terminate(self, uid: str) -> None:
        """Stop the engines of a deployment and delete it.

        Raises:
            Problem: 404, with the running models.
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
            Problem: 404; 409 ``not_launching``, the deployment is ready or has failed.
        """
        deployment = self.deployment(uid)
        if not deployment.launching:
            state = "failed" if deployment.problem else "ready"
            hint = f"`xinference terminate --model-uid {uid}` ends it."
            raise Problem(Code.NOT_LAUNCHING, f"{uid} is not being launched: it is {state}.", hint=hint)
        await self.terminate(uid)

    def progress(self, uid: str) -> dict[str, Any]:
        """The progress of a launch in the form of the API; for an unknown uid, no stage has begun."""
        deployment = self._deployments.get(uid)
        return progress.unknown() if deployment is None else deployment.progress

    def deployment(self, uid: str) -> Deployment | BrokenDeployment:
        """One deployment by its uid.

        Raises:
            Problem: 404, with the running models.
        """
        deployment = self._deployments.get(uid)
        if deployment is None:
            raise self._not_found(uid)
        return deployment

    def running(self, uid: str) -> Deployment:
        """One deployment by its uid, which is not a `BrokenDeployment`.

        Raises:
            Problem: 404; or the reason why the stored deployment could not be restored.
        """
        deployment = self.deployment(uid)
        if isinstance(deployment, BrokenDeployment):
            raise deployment.problem
        return deployment

    def deployments(self) -> list[Deployment | BrokenDeployment]:
        """All deployments, oldest first."""
        return sorted(self._deployments.values(), key=lambda d: d.created)

    @property
    def families(self) -> Mapping[str, ModelFamily]:
        """All families that can be launched by their name."""
        return self.registrations.families

    def uids_of_family(self, family: str) -> list[str]:
        """The uids of a family's deployments, including the failed ones."""
        return [d.uid for d in self._working_deployments() if d.plan.version.family.model_name == family]

    def events(self, uid: str) -> list[dict[str, Any]]:
        """The stored events of a deployment, oldest first."""
        self.deployment(uid)
        return self._events.stored(uid)

    def follow(self, uid: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a deployment until it is ready, has failed or is terminated."""
        return self._follow(self.deployment(uid), uid)

    # -- helpers --------------------------------------------------------------------------------------------

    async def _follow(self, deployment: Deployment | BrokenDeployment, uid: str) -> AsyncIterator[dict[str, Any]]:
        # Read when the iteration starts: a deployment that has ended since the call sends no further event.
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

    def _cache_uses(self) -> Iterator[cache.CacheUse]:
        for uid, deployment in self._deployments.items():
            if isinstance(deployment, Deployment) and deployment.problem is None:
                plan = deployment.plan
                version_id = plan.version.version_id if plan.source else None
                yield cache.CacheUse(f"the model {uid}", version_id, _weights_path(plan))

    def _working_deployments(self) -> list[Deployment]:
        """The deployments that were launched or restored, without those that could not be restored."""
        return [deployment for deployment in self._deployments.values() if isinstance(deployment, Deployment)]

    def _uid_for(self, request: LaunchRequest) -> str:
        taken = self._deployments.keys() | self.table.routes.keys()
        return model_names.uid_for(request, taken, self._reserved)

    def _not_found(self, uid: str) -> Problem:
        similar = near(uid, self._deployments)
        running = ", ".join(self._deployments) or "none"
        hint = f"Did you mean {' or '.join(similar)}?" if similar else f"Running models: {running}."
        return not_found(f"There is no running model {uid!r}.", hint=hint, code=Code.MODEL_NOT_FOUND)

    def _publish(self) -> None:
        deployments = self._deployments.values()
        self._publisher.publish((d.route, listing_entry(d.uid, d.description)) for d in deployments)


def _weights_path(plan: LaunchPlan) -> Path | None:
    """The path of a launch's weights; None: they are not fetched yet."""
    if isinstance(plan, SizedPlan):
        return plan.path
    return plan.origin if isinstance(plan.origin, Path) else None
