"""`xinference catalog` without a running server: the catalog of this home."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from xinference.catalog.catalog_store import CatalogStore
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control.catalog_updates import CatalogRequest, CatalogUpdates

Json = dict[str, Any]


def list_catalogs(settings: Settings) -> Json:
    """The catalogs of the home."""
    return _run(settings, _describe)


def update_catalog(settings: Settings, **request: str | None) -> Json:
    """Fetch a catalog and use it. Raises `Problem` as `CatalogUpdates.update`."""
    return _run(settings, lambda updates: updates.update(CatalogRequest(**request)))


def compare_catalog(settings: Settings, **request: str | None) -> Json:
    """What an update would change, or has changed. Raises `Problem` as `CatalogUpdates.compare`."""
    named = request.get("source") or request.get("catalog")
    return _run(settings, lambda updates: updates.compare(CatalogRequest(**request) if named else None))


def rollback_catalog(settings: Settings) -> Json:
    """Use the catalog before. Raises `Problem` as `CatalogUpdates.rollback`."""
    return _run(settings, lambda updates: updates.rollback())


def _run(settings: Settings, action: Callable[[CatalogUpdates], Awaitable[Json]]) -> Json:
    async def run() -> Json:
        builtin = builtin_families()
        registrations = Registrations(settings.home, builtin)
        updates = CatalogUpdates(settings, CatalogStore(settings.home, builtin), registrations)
        updates.load()
        return await action(updates)

    return asyncio.run(run())


async def _describe(updates: CatalogUpdates) -> Json:
    return updates.describe()
