"""`xinference cached` without a running server: the same answers, from the caches on this machine."""

from __future__ import annotations

from typing import Any

from xinference.catalog.known_models import registrations_of
from xinference.config import Settings
from xinference.control.resolver import ModelResolver
from xinference.hubs.registry import all_hubs
from xinference.weights.cache import cached_versions


def cached_entries(settings: Settings, model_name: str | None = None) -> list[dict[str, Any]]:
    """The cached versions, complete and partial, of all models or of one."""
    registrations, hubs = registrations_of(settings.home), all_hubs(settings)
    resolver = ModelResolver(settings, registrations, hubs)
    families = (*registrations.families.values(), *resolver.look_ups.families())
    name = model_name.strip().lower() if model_name else None
    versions = cached_versions(families, hubs, settings)
    return [each.to_dict() for each in versions if name is None or each.version.family.model_name.lower() == name]
