"""`xinference launch --dry-run` without a server: the same plan, made in this process; it starts nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from pydantic import ValidationError

from xinference.api.launch_body import LaunchBody
from xinference.catalog.known_models import registrations_of
from xinference.config import Settings
from xinference.control.family_selection import select_families
from xinference.control.model_names import uid_for
from xinference.control.planner import Planner
from xinference.engines.registry import all_engines
from xinference.errors import Problem, bad_request
from xinference.hubs.registry import all_hubs
from xinference.launch.plan import Devices, LaunchPlan, ResolvedLaunch, Sizing, plan_entry
from xinference.launch.request import LaunchRequest
from xinference.nodes.local import LocalNode
from xinference.planning.eviction import HOST, Bytes
from xinference.planning.occupancy import Occupancy
from xinference.routing.interfaces import NoLoad
from xinference.store.database import Store
from xinference.weights.derivation import DerivedRequest
from xinference.work_threads import LongWork


def plan_launch(body: Mapping[str, Any], settings: Settings | None = None) -> dict[str, Any]:
    """The plan of a launch, in the form of the API, with the models of this home that a server would load first.

    Raises:
        Problem: as the API does.
    """
    try:
        request = LaunchBody.model_validate(body).request()
    except ValidationError as error:
        first = error.errors()[0]
        raise bad_request(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from None
    return asyncio.run(_HomePlanner(settings or Settings.from_env()).plan(request))


def fits(settings: Settings, model_type: str | None, part: str) -> list[dict[str, Any]]:
    """Whether each version fits on each engine, in the form of the API; see `Planner.fits`.

    Raises:
        Problem: 400 for an unknown type.
    """
    return asyncio.run(_HomePlanner(settings).fits(model_type, part))


@dataclass(frozen=True)
class _Remembered:
    """A model of the home, which a server would load when it starts."""

    uid: str
    reserved: Bytes


class _HomePlanner:
    """Plans one launch with the memory that the models of the home would reserve. Implements `ReservedMemory`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._remembered: list[_Remembered] = []
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
        return Occupancy(on_gpus, host_outstanding=on_host, host_remaining=max(0, limit - on_host) if limit else None)

    def reserved(self) -> Mapping[str, Bytes]:
        """Empty: no model can be unloaded, because none is loaded."""
        return {}

    def corrections(self) -> Mapping[tuple[str, str], int]:
        """Empty: measurements are those of a server."""
        return {}

    async def fits(self, model_type: str | None, part: str) -> list[dict[str, Any]]:
        await self._remember_models()
        families = select_families(self._registrations.families, model_type, part)
        return [fit.to_dict() for fit in await self._planner.fits(families)]

    async def plan(self, request: LaunchRequest) -> dict[str, Any]:
        await self._remember_models(without=request.model_uid)
        derived = await self._planner.resolver.resolve(request)
        uid = uid_for(derived.request, [each.uid for each in self._remembered], ())
        launch = await self._resolve(derived, uid)
        sized = await self._planner.size(launch, derived.request)
        forecast = None if sized else await self._planner.forecast(launch, derived.request)
        models = [{"model_uid": each.uid, "memory_bytes": sum(each.reserved.values())} for each in self._remembered]
        return plan_entry(launch, sized, forecast) | {"models_of_home": models}

    async def _resolve(self, derived: DerivedRequest, uid: str) -> ResolvedLaunch:
        draft = await self._planner.draft(derived.request, uid)
        draft = replace(draft, reasons=(*derived.reasons, *draft.reasons))
        return await self._planner.resolve(draft, derived.request)

    async def _remember_models(self, without: str | None = None) -> None:
        """Add the memory of the models that a server would load, except of one."""
        for uid, remembered in self._stored_requests():
            if not remembered.on_demand and uid != without:
                await self._remember(uid, remembered)

    async def _remember(self, uid: str, request: LaunchRequest) -> None:
        """Add the memory of a model of the home; one that cannot be planned would not be loaded either."""
        try:
            launch = await self._resolve(DerivedRequest(request), uid)
            sized = await self._planner.size(launch)
            if sized is not None:
                self._remembered.append(_Remembered(uid, _reserved(launch, sized.sizing, sized.devices)))
                return
            forecast = await self._planner.forecast(launch)
        except Problem:
            return
        if forecast.sizing is not None:
            self._remembered.append(_Remembered(uid, _reserved(launch, forecast.sizing, forecast.devices)))

    def _stored_requests(self) -> list[tuple[str, LaunchRequest]]:
        """The requests of the models that a server would load; an unreadable one is left out."""
        path = self._settings.home / "xinference.db"
        if not path.is_file():
            return []
        with closing(Store(path)) as store:
            rows = [row for row in store.deployments() if row.wanted and row.problem is None]
        requests = []
        for row in rows:
            try:
                requests.append((row.uid, msgspec.json.decode(row.request, type=LaunchRequest)))
            except msgspec.MsgspecError:
                continue
        return requests


def _reserved(launch: ResolvedLaunch, sizing: Sizing, devices: Devices) -> Bytes:
    """Device -> bytes that a plan reserves."""
    if not devices:
        return {HOST: sizing.total_bytes * launch.request.replica}
    reserved: dict[int, int] = {}
    for group in devices:
        for index in group:
            reserved[index] = reserved.get(index, 0) + sizing.total_bytes // len(group)
    return reserved
