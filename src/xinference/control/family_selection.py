"""Selects families by type and by a text in their name. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.catalog.models import ModelFamily
from xinference.catalog.registrations import model_type_of


def select_families(families: Mapping[str, ModelFamily], model_type: str | None, part: str) -> list[ModelFamily]:
    """The families of one type, or of all, with `part` in their name, by their names.

    Raises:
        Problem: 400 for an unknown type.
    """
    wanted = None if model_type is None else model_type_of(model_type)
    text = part.strip().lower()
    named = (families[name] for name in families if text in name.lower())
    found = [family for family in named if wanted is None or family.model_type == wanted]
    return sorted(found, key=lambda family: family.model_name.lower())
