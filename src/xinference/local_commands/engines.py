"""`xinference engine` and the list of an engine's models without a server, from this machine and this home."""

from __future__ import annotations

import asyncio
from typing import Any

from xinference.catalog.known_models import registrations_of
from xinference.catalog.models import ModelFamily
from xinference.config import Settings
from xinference.control.resolver import ModelResolver
from xinference.engines.registry import all_engines
from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.hardware.devices import read_host
from xinference.hubs.registry import all_hubs
from xinference.launch.match import match
from xinference.launch.request import LaunchRequest
from xinference.planning import engine_rows


def rows_of(settings: Settings, model_name: str) -> list[dict[str, Any]]:
    """For each version of a model, a repository or a path and each engine: ``ok``, or the ``reason`` why not.

    Raises:
        Problem: the model is unknown, or its files cannot be read.
    """
    return engine_rows.engine_rows(all_engines().values(), _family(settings, model_name), read_host())


def models_of(settings: Settings, engine: str) -> dict[str, list[str]]:
    """The language models that an engine supports, by ability."""
    return engine_rows.models_by_ability(all_engines()[engine], registrations_of(settings.home).families.values())


def _family(settings: Settings, name: str) -> ModelFamily:
    registrations = registrations_of(settings.home)
    resolver = ModelResolver(settings, registrations, all_hubs(settings), stores_look_ups=False)
    request = asyncio.run(resolver.resolve(LaunchRequest(model_name=name), any_file=True)).request
    if request.family is not None:
        return request.family
    try:
        return match(registrations.families, request).family
    except Problem as problem:
        raise problem.replace(code=Code.MODEL_NOT_FOUND) from None
