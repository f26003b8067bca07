"""Compares two catalogs: the families that are added, removed and changed, and the fields that differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xinference.catalog.family_fields import fields_of
from xinference.catalog.models import ModelFamily


def differences(before: Mapping[str, ModelFamily], after: Mapping[str, ModelFamily]) -> dict[str, Any]:
    """As JSON: the names that are ``added`` and ``removed``, and for each name that is ``changed`` its fields."""
    both = [name for name in after if name in before]
    changed = {name: changed_fields(before[name], after[name]) for name in both if before[name] != after[name]}
    return {
        "added": sorted(name for name in after if name not in before),
        "removed": sorted(name for name in before if name not in after),
        "changed": dict(sorted(changed.items())),
    }


def changed_fields(before: ModelFamily, after: ModelFamily) -> list[str]:
    """The fields that differ; of the specs, each one that is new, removed or changed."""
    old, new = fields_of(before), fields_of(after)
    names = sorted({*old, *new} - {"model_specs"})
    fields = [name for name in names if old.get(name) != new.get(name)]
    old_specs, new_specs = _specs(old), _specs(new)
    titles = dict.fromkeys([*old_specs, *new_specs])
    return fields + [title for title in titles if old_specs.get(title) != new_specs.get(title)]


def _specs(fields: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Format and size -> the specs with them."""
    specs: dict[str, list[Any]] = {}
    for spec in fields["model_specs"]:
        specs.setdefault(f"{spec['model_format']} {spec['model_size_in_billions']}", []).append(spec)
    return specs
