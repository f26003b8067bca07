"""`xinference docs`: the reference pages of all built-in families, from the registry and the engines' tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xinference.catalog.known_models import catalog_of
from xinference.catalog.models import ModelFamily, ModelSpec
from xinference.config import Settings
from xinference.engines.base import Engine
from xinference.engines.registry import all_engines
from xinference.local_commands.model_pages import Supporters, write_docs


def supporters(family: ModelFamily) -> Supporters:
    """Engine name -> whether it supports a spec of the family in a quantization, from static tables alone."""
    return {
        name: _supports(engine, family)
        for name, engine in all_engines().items()
        if family.model_type in engine.table.model_types
    }


def write(out: Path) -> list[Path]:
    """Write the page of every built-in family and the index into `out`; needs no server.

    Raises:
        Problem: 400 ``cannot_write``.
    """
    return write_docs(catalog_of(Settings.from_env().home).families.values(), supporters, out)


def _supports(engine: Engine, family: ModelFamily) -> Callable[[ModelSpec, str], bool]:
    reads = bool(engine.reads(family))
    return lambda spec, quantization: reads and bool(engine.table.supports(spec, quantization))
