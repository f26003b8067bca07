"""`xinference cached` without a running server: the same answers, from the caches on this machine."""

from __future__ import annotations

from typing import Any

from xinference.catalog.registration_store import Registrations
from xinference.catalog.registry import builtin_families
from xinference.config import Settings
from xinference.control.resolver import ModelResolver
from xinference.hubs.registry import all_hubs
from xinference.weights.cache import cached_versions


def cached_entries(settings: Settings, model_name: str | None = None) -> list[dict[str, Any]]:
    """The cached versions, complete and partial, of all models or of one."""
    registrations, hubs = Registrations(settings.home, builtin_families()), all_hubs(settings)
    registrations.load()
    resolver = ModelResolver(settings, registrations, hubs)
    families = (*registrations.families.values(), *resolver.cached_families())
    name = model_name.strip().lower() if model_name else None
    versions = cached_versions(families, hubs, settings)
    return [each.to_dict() for each in versions if name is None or each.version.family.model_name.lower() == name]
