"""The models of one home for commands without a server: those of its catalog, and the registered ones."""

from __future__ import annotations

from pathlib import Path

from xinference.catalog.catalog_store import CatalogStore
from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families


def catalog_of(home: Path) -> CatalogStore:
    """The catalog of a home, with the update in use."""
    store = CatalogStore(home, builtin_families())
    store.load()
    return store


def registrations_of(home: Path) -> Registrations:
    """The registered models of a home, and those of its catalog."""
    registrations, store = Registrations(home, builtin_families()), catalog_of(home)
    registrations.use_catalog(store.families, store.updates)
    registrations.load()
    return registrations
