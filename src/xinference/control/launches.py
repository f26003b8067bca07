"""The launches: plans a request, stores its row, and starts its deployment; the same launch is the same model."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from xinference.control.deployment_names import DeploymentNames
from xinference.control.deployment_registry import DeploymentRegistry
from xinference.control.planned_launch import PlannedLaunch
from xinference.control.planner import Planner
from xinference.control.reservations import Reservations
from xinference.control.restarts import Restarts
from xinference.control.room import launch_with_room
from xinference.control.same_launch import (
    Found,
    Launched,
    find_same,
    find_similar,
    launch_key,
    state_of,
    uid_reason,
    uid_taken,
)
from xinference.control.store_writer import StoreWriter
from xinference.control.terminations import Terminations
from xinference.deployments.context import DeploymentContext
from xinference.deployments.deployment import Deployment
from xinference.errors import Problem
from xinference.launch.comparison import asked_fields, is_same_launch
from xinference.launch.forecast import Forecast
from xinference.launch.plan import LaunchDraft, ResolvedLaunch, SizedPlan
from xinference.launch.request import LaunchRequest
from xinference.planning.summary import expectation
from xinference.store.event_log import models_log
from xinference.store.launch_history import LaunchHistory
from xinference.weights.derivation import DerivedRequest


class Launches:
    """Launches deployments."""

    def __init__(
        self,
        registry: DeploymentRegistry,
        names: DeploymentNames,
        terminations: Terminations,
        restarts: Restarts,
        planner: Planner,
        context: DeploymentContext,
        writer: StoreWriter,
        history: LaunchHistory,
    ) -> None:
        self._registry = registry
        self._names = names
        self._terminations = terminations
        self._restarts = restarts
        self._planner = planner
        self._context = context
        self._writer = writer
        self._history = history
        self._equal_launches = Reservations()
        """The requests of the launches without a uid that are being planned, so that equal launches are one."""

    async def plan(self, request: LaunchRequest, *, new: bool = False) -> PlannedLaunch:
        """Plan a launch without starting it; for a launch that `launch` would find, its plan and that of a copy.

        `new`: plan a copy.

        Raises:
            Problem: 400, the request can't be served, or does not fit; 409, the uid is taken by another launch;
                507 ``disk_full``.
        """
        request = msgspec.structs.replace(request, asked=asked_fields(request))
        similar = None if new else find_similar(request, self._registry.working())
        derived = await self._planner.resolver.resolve(request, similar)
        draft = await self._draft(derived, derived.request.model_uid or derived.request.model_name)
        existing = None if new else self._earlier(draft, derived.request)
        if existing is None or existing.problem is not None:
            uid = self._names.uid_for(derived.request, is_copy=new) if existing is None else existing.uid
            if existing is None and not new:
                draft = self._with_reason_for_uid(draft, uid)
            launch, sized, forecast = await self._resolve(draft.with_uid(uid), derived.request)
            failed = existing is not None and is_same_launch(draft.request, existing.plan.request)
            return PlannedLaunch(launch, sized, forecast, Found.FAILED if failed else None)
        if not is_same_launch(draft.request, existing.plan.request):
            raise uid_taken(draft.request, existing.plan)
        try:
            copy: PlannedLaunch | Problem = await self.plan(request, new=True)
        except Problem as problem:
            copy = problem
        return PlannedLaunch.of_deployment(existing.plan, state_of(existing), copy)

    def _earlier(self, draft: LaunchDraft, request: LaunchRequest) -> Deployment | None:
        """The deployment that has the uid of a draft, or, where `request` names no uid, that is the same launch."""
        ending = self._terminations.uids
        working = [each for each in self._registry.working() if each.uid not in ending]
        uid = draft.uid if request.model_uid is not None else find_same(draft, working)
        return next((each for each in working if each.uid == uid), None)

    async def launch(self, request: LaunchRequest, *, new: bool = False, warnings: Iterable[str] = ()) -> Launched:
        """Store a deployment and start it; `warnings` are added to its events.

        A request for the same model as an earlier one launches nothing: the deployment that exists is returned, and is
        started again if it is unloaded or has failed. `new`: launch a copy.

        Where nodes can be asked for, a launch without room waits for one.

        Raises:
            Problem: 400, the request can't be served; 409, the uid is taken by another launch.
        """
        if (room := self._context.room) is None:
            return await self._launch(request, new, warnings)
        warnings = tuple(warnings)
        return await launch_with_room(lambda: self._launch(request, new, warnings), request, room)

    async def _launch(self, request: LaunchRequest, new: bool, warnings: Iterable[str]) -> Launched:
        request = msgspec.structs.replace(request, asked=asked_fields(request))
        similar = None if new else find_similar(request, self._registry.working())
        derived = await self._planner.resolver.resolve(request, similar)
        request = derived.request
        draft = await self._draft(derived, request.model_uid or request.model_name)
        if new or request.model_uid is not None:
            return await self._launch_as(self._names.uid_for(request, is_copy=new), draft, request, warnings)
        async with self._equal_launches.hold(launch_key(draft)):
            ending = self._terminations.uids
            same = find_same(draft, (each for each in self._registry.working() if each.uid not in ending))
            uid = same or self._names.uid_for(request)
            draft = draft if same else self._with_reason_for_uid(draft, uid)
            return await self._launch_as(uid, draft, request, warnings)

    async def _launch_as(
        self, uid: str, draft: LaunchDraft, request: LaunchRequest, warnings: Iterable[str]
    ) -> Launched:
        """Launch a draft under this uid, or return its deployment if it is the same launch.

        Raises:
            Problem: as `launch`.
        """
        draft = draft.with_uid(uid)
        async with self._names.reserved_uids.hold(uid):
            await self._terminations.wait(uid)
            existing = self._registry.get(uid)
            failed = False
            if isinstance(existing, Deployment):
                if existing.problem is None:
                    return await self._take_up(existing, draft, request)
                failed = is_same_launch(draft.request, existing.plan.request)
            launch, sized, forecast = await self._resolve(draft, request)
            if forecast is not None:
                choices = (*launch.draft.choices, expectation(forecast))
                launch = replace(launch, draft=replace(launch.draft, choices=choices))
            if uid in self._registry:  # one that has failed
                await self._terminations.terminate(uid)
            await self._begin(launch, sized, warnings)
            return Launched(uid, Found.FAILED if failed else None)

    async def _take_up(self, existing: Deployment, draft: LaunchDraft, request: LaunchRequest) -> Launched:
        """Return the deployment that has the uid of a launch, if it is the same launch; it is started if unloaded.

        Raises:
            Problem: 409, it is another launch.
        """
        if not is_same_launch(draft.request, existing.plan.request):
            raise uid_taken(draft.request, existing.plan)
        await self._names.add_aliases(existing.uid, request.aliases)
        found = state_of(existing)
        if found is Found.UNLOADED:
            await self._restarts.start_again(existing)
        return Launched(existing.uid, found)

    async def _begin(self, launch: ResolvedLaunch, sized: SizedPlan | None, warnings: Iterable[str]) -> None:
        """Store the row of a launch, and start its deployment.

        Raises:
            Problem: the row cannot be written; 409, a name is taken.
        """
        uid, created, stored = launch.uid, time.time(), msgspec.json.encode(launch.request).decode()
        await self._writer.add_deployment(uid, stored, created)
        try:
            self._names.check_free(launch)  # again: another launch may have got them meanwhile
            deployment = Deployment(sized or launch, self._context, created)
        except BaseException:
            self._context.store.remove_deployment(uid)
            raise
        self._history.begun(uid, stored, created)
        self._registry.add(deployment)
        models_log.info("%s: launched as %s on %s", uid, launch.version.version_id, launch.engine)
        for warning in warnings:
            self._context.events.add(uid, "WARNING", "plan", warning)
        deployment.begin()
        self._registry.publish()

    def _with_reason_for_uid(self, draft: LaunchDraft, uid: str) -> LaunchDraft:
        """The draft with the reason for a `uid` that is not the model's name: another launch has that name."""
        other = self._registry.get(draft.uid)
        if uid == draft.uid or not isinstance(other, Deployment):
            return draft
        reason = uid_reason(uid, draft.request, other.plan)
        return replace(draft, reasons=(reason, *draft.reasons), choices=(reason, *draft.choices))

    async def _draft(self, derived: DerivedRequest, uid: str) -> LaunchDraft:
        """The draft of a derived request, with the reasons of both."""
        draft = await self._planner.draft(derived.request, uid)
        reasons, choices = (*derived.reasons, *draft.reasons), (*derived.choices, *draft.choices)
        return replace(draft, reasons=reasons, choices=choices)

    async def _resolve(
        self, draft: LaunchDraft, request: LaunchRequest
    ) -> tuple[ResolvedLaunch, SizedPlan | None, Forecast | None]:
        """The resolved launch with its sized plan, or with a forecast if the weights are not on this machine.

        Raises:
            Problem: a name is taken; the launch does not fit; no byte of the weights is fetched.
        """
        launch = await self._planner.resolve(draft, request)
        await self._names.check(launch)
        sized = await self._planner.size(launch, request)
        return launch, sized, None if sized else await self._planner.forecast(launch, request)
