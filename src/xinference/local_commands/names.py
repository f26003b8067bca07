"""The names that shell completion offers without a server."""

from __future__ import annotations

from xinference.catalog.registry import builtin_families
from xinference.engines.registry import all_engines


def model_names() -> list[str]:
    """The names of the built-in models."""
    return list(builtin_families())


def engine_names() -> list[str]:
    """The names of the engines."""
    return list(all_engines())


def quantizations(model_name: str | None) -> list[str]:
    """The quantizations of a built-in model; of all models if there is none of that name."""
    families = builtin_families()
    chosen = [families[name] for name in families if name.lower() == (model_name or "").lower()]
    specs = (spec for family in chosen or families.values() for spec in family.model_specs)
    return list(dict.fromkeys(quantization for spec in specs for quantization in spec.quantizations))
