"""`xinference registrations` without a running server: the built-in models, and the custom ones of this home."""

from __future__ import annotations

from typing import Any

import msgspec

from xinference.catalog.known_models import registrations_of
from xinference.catalog.registrations import model_type_of
from xinference.config import Settings


def registration_entries(settings: Settings, model_type: str) -> list[dict[str, Any]]:
    """The models of one type by name, with their facts and whether they are built in.

    Raises:
        Problem: 400 for an unknown type.
    """
    wanted = model_type_of(model_type)
    registrations = registrations_of(settings.home)
    families = [family for family in registrations.families.values() if family.model_type == wanted]
    entries = [
        {**msgspec.to_builtins(family), "is_builtin": registrations.find(family.model_name) is None}
        for family in families
    ]
    entries += [each.to_dict() for each in registrations.broken if each.model_type == wanted]
    return sorted(entries, key=lambda entry: str(entry["model_name"]).lower())
