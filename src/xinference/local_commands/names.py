"""The names that shell completion offers without a server."""

from __future__ import annotations

from collections.abc import Mapping

from xinference.catalog.known_models import catalog_of
from xinference.catalog.models import ModelFamily
from xinference.config import Settings
from xinference.engines.registry import all_engines


def model_names() -> list[str]:
    """The names of the built-in models."""
    return list(_families())


def engine_names() -> list[str]:
    """The names of the engines."""
    return list(all_engines())


def quantizations(model_name: str | None) -> list[str]:
    """The quantizations of a built-in model; of all models if there is none of that name."""
    families = _families()
    chosen = [families[name] for name in families if name.lower() == (model_name or "").lower()]
    specs = (spec for family in chosen or families.values() for spec in family.model_specs)
    return list(dict.fromkeys(quantization for spec in specs for quantization in spec.quantizations))


def _families() -> Mapping[str, ModelFamily]:
    return catalog_of(Settings.from_env().home).families
