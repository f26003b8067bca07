"""`xinference launch --dry-run` without a server: the same plan, made in this process; it starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError

from xinference.api.invalid_body import invalid_body
from xinference.api.launch_body import LaunchBody
from xinference.catalog.known_models import registrations_of
from xinference.config import Settings
from xinference.control.family_selection import select_families
from xinference.control.model_names import uid_for
from xinference.control.planned_launch import PlannedLaunch, planned_entry
from xinference.control.planner import Planner
from xinference.control.same_launch import Found, uid_taken
from xinference.engines.registry import all_engines
from xinference.errors import Problem, bad_request
from xinference.hubs.registry import all_hubs
from xinference.launch.comparison import asked_fields, is_same_launch
from xinference.launch.plan import Devices, LaunchPlan, ResolvedLaunch, SizedPlan, Sizing
from xinference.launch.request import LaunchRequest
from xinference.local_commands.stored_requests import Stored, stored_requests
from xinference.nodes.local import LocalNode
from xinference.planning.eviction import HOST, Bytes
from xinference.planning.occupancy import Occupancy, with_states
from xinference.routing.interfaces import NoLoad
from xinference.weights.derivation import DerivedRequest
from xinference.work_threads import LongWork

if TYPE_CHECKING:
    from xinference.planning.fits import Fit


def plan_launch(body: Mapping[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    """The plan of a launch, in the form of the API, with the models of this home that a server would load first.

    Raises:
        Problem: as the API does.
    """
    try:
        launch = LaunchBody.model_validate(body)
        request = launch.request()
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        raise bad_request(invalid_body(errors, body)) from None
    with launch.naming_similar_fields():
        plan = asyncio.run(HomePlanner(settings or Settings.from_env()).plan(request, new=launch.new))
    return {**plan, "warnings": launch.warnings()}


@dataclass(frozen=True)
class _Remembered:
    """A model of the home, which a server would load when it starts."""

    uid: str
    reserved: Bytes


class HomePlanner:
    """Plans one launch with the memory that the models of the home would reserve. Implements `ReservedMemory`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._remembered: list[_Remembered] = []
        self._planned: dict[str, PlannedLaunch] = {}
        """The plans of the stored launches, by uid."""
        self._registrations = registrations_of(settings.home)
        hubs, engines = all_hubs(settings), all_engines()
        work = LongWork(settings.hub_seconds)
        node = LocalNode(settings, hubs, engines, NoLoad(), work)
        self._planner = Planner(settings, hubs, engines, self._registrations, self, work, node, stores_look_ups=False)

    def occupancy_for(self, plan: LaunchPlan, without: Collection[str] = ()) -> Occupancy:
        return self.occupancy(without)

    def occupancy(self, without: Collection[str] = ()) -> Occupancy:
        """The memory of the remembered models, none of which is loaded yet."""
        on_host = sum(each.reserved.get(HOST, 0) for each in self._remembered)
        on_gpus: dict[int, int] = {}
        for each in self._remembered:
            for device, count in each.reserved.items():
                if device != HOST:
                    on_gpus[device] = on_gpus.get(device, 0) + count
        limit = self._settings.model_memory
        return Occupancy(
            on_gpus,
            host_outstanding=on_host,
            host_remaining=max(0, limit - on_host) if limit else None,
            saves_states=self._settings.saves_states,
        )

    def reserved(self) -> Mapping[str, Bytes]:
        """Empty: no model can be unloaded, because none is loaded."""
        return {}

    def corrections(self) -> Mapping[tuple[str, str], int]:
        """Empty: measurements are those of a server."""
        return {}

    async def fits(self, model_type: str | None, part: str) -> list[Fit]:
        await self._remember_models(stored_requests(self._settings))
        families = select_families(self._registrations.families, model_type, part)
        return await self._planner.fits(families)

    async def plan(self, request: LaunchRequest, *, new: bool = False) -> dict[str, Any]:
        request = msgspec.structs.replace(request, asked=asked_fields(request))
        stored = stored_requests(self._settings)
        derived = await self._planner.resolver.resolve(request)
        earlier = None if new else await self._earlier(derived, stored)
        await self._remember_models(stored)
        if earlier is None:
            planned = await self._plan(derived, stored, is_copy=new)
        else:
            try:
                copy: PlannedLaunch | Problem = await self._plan(derived, stored, is_copy=True)
            except Problem as problem:
                copy = problem
            planned = replace(await self._plan_stored(*earlier), found=Found.STORED, copy=copy)
        models = [{"model_uid": each.uid, "memory_bytes": sum(each.reserved.values())} for each in self._remembered]
        return planned_entry(planned) | {"models_of_home": models}

    async def size(self, request: LaunchRequest) -> SizedPlan | None:
        """The plan of a launch beside the models of the home; None: its weights are not on this machine.

        Raises:
            Problem: it cannot be launched.
        """
        stored = stored_requests(self._settings)
        await self._remember_models(stored)
        planned = await self._plan(await self._planner.resolver.resolve(request), stored, is_copy=True)
        return planned.sized

    async def size_with(self, plan: SizedPlan, options: Mapping[str, Any]) -> SizedPlan | None:
        """The plan with further options of the engine, by its own names.

        Raises:
            Problem: it does not fit.
        """
        return await self._planner.size(replace(plan.launch, options={**plan.options, **options}))

    async def _earlier(self, derived: DerivedRequest, stored: Stored) -> tuple[str, LaunchRequest] | None:
        """The stored launch that a request would repeat.

        Raises:
            Problem: 409, the uid is taken by another launch.
        """
        asked = derived.request.model_uid
        draft = await self._planner.draft(derived.request, asked or derived.request.model_name)
        for uid, request in stored:
            if asked in (None, uid) and is_same_launch(draft.request, request):
                return uid, request
        if (other := dict(stored).get(asked or "")) is not None:
            raise uid_taken(draft.request, (await self._plan_stored(asked or "", other)).launch)
        return None

    async def _plan(self, derived: DerivedRequest, stored: Stored, *, is_copy: bool) -> PlannedLaunch:
        """The plan of a new launch beside the models of the home.

        Raises:
            Problem: it cannot be launched.
        """
        uid = uid_for(derived.request, [uid for uid, _ in stored], (), is_copy=is_copy)
        launch = await self._resolve(derived, uid)
        sized = await self._planner.size(launch, derived.request)
        return PlannedLaunch(launch, sized, None if sized else await self._planner.forecast(launch, derived.request))

    async def _plan_stored(self, uid: str, request: LaunchRequest) -> PlannedLaunch:
        """The plan of a stored launch; without its size if it does not fit any more.

        Raises:
            Problem: it cannot be launched any more.
        """
        if uid not in self._planned:
            launch = await self._resolve(DerivedRequest(request), uid)
            try:
                sized = await self._planner.size(launch)
                forecast = None if sized else await self._planner.forecast(launch)
                self._planned[uid] = PlannedLaunch(launch, sized, forecast)
            except Problem:
                self._planned[uid] = PlannedLaunch(launch)
        return self._planned[uid]

    async def _resolve(self, derived: DerivedRequest, uid: str) -> ResolvedLaunch:
        draft = await self._planner.draft(derived.request, uid)
        draft = replace(draft, reasons=(*derived.reasons, *draft.reasons))
        return await self._planner.resolve(draft, derived.request)

    async def _remember_models(self, stored: Stored) -> None:
        """Add the memory of the models that a server would load."""
        for uid, remembered in stored:
            if not remembered.on_demand:
                await self._remember(uid, remembered)

    async def _remember(self, uid: str, request: LaunchRequest) -> None:
        """Add the memory of a model of the home; one that cannot be planned would not be loaded either."""
        try:
            planned = await self._plan_stored(uid, request)
        except Problem:
            return
        if (plan := planned.sized or planned.forecast) is not None and plan.sizing is not None:
            self._remembered.append(_Remembered(uid, _reserved(planned.launch, plan.sizing, plan.devices)))


def _reserved(launch: ResolvedLaunch, sizing: Sizing, devices: Devices) -> Bytes:
    """Device -> bytes that a plan reserves."""
    reserved: dict[int, int] = {}
    for group in devices:
        for index in group:
            reserved[index] = reserved.get(index, 0) + sizing.engine_bytes // len(group)
    return with_states(reserved, sizing, launch.request.replica)
