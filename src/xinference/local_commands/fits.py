"""`xinference registrations --fits` without a server: what fits on this machine.

A home without models that a server would load needs no planner of launches, whose modules take longer than the table.
"""

from __future__ import annotations

import asyncio
from typing import Any

from xinference.catalog.known_models import registrations_of
from xinference.config import Settings
from xinference.control.family_selection import select_families
from xinference.engines.registry import all_engines
from xinference.hardware.devices import read_host
from xinference.local_commands.stored_requests import stored_requests
from xinference.planning.fits import FitFinder, Memory
from xinference.planning.occupancy import Occupancy, available


def fits(settings: Settings, model_type: str | None, part: str) -> list[dict[str, Any]]:
    """Whether each version fits on each engine, in the form of the API; see `Planner.fits`.

    Raises:
        Problem: 400 for an unknown type.
    """
    if any(not request.on_demand for _, request in stored_requests(settings)):
        from xinference.local_commands.plan import HomePlanner

        return [fit.to_dict() for fit in asyncio.run(HomePlanner(settings).fits(model_type, part))]
    families = select_families(registrations_of(settings.home).families, model_type, part)
    host = read_host()
    occupancy = Occupancy(host_remaining=settings.model_memory or None, saves_states=settings.saves_states)
    memory = Memory(available(host, occupancy))
    return [fit.to_dict() for fit in FitFinder(all_engines()).find(families, host, memory)]
